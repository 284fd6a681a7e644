"""The whole of it: from pairs, or any flow, to a refined flow; from a flow to a density ratio."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from wfr_flows.dynamics import Field, Geometry
from wfr_flows.geodesics import fit_matching
from wfr_flows.measures import Particles, redrawing
from wfr_flows.potentials import Potential
from wfr_flows.refinement.bridges import Bridge
from wfr_flows.refinement.density_ratio import LogRatio, density_ratio, log_ratio
from wfr_flows.refinement.pairs import flow_matching, flow_pairs, independent_pairs
from wfr_flows.refinement.q_flow import Ends, QParams, init_params, q_flow
from wfr_flows.static import Diracs
from wfr_flows.training import Chunk, Method, cosine_muon, last_good, run
from wfr_flows.typing import Array, Float, Key, Params

Draw = Callable[[Key, int], Ends]
"""``(key, n) -> (source, target)``, ``n`` particles of either."""


def between(source: Particles, target: Particles) -> Draw:
    """Draws from two weighted samples, in proportion to the weights, of the masses of the samples."""

    first, last = redrawing(source), redrawing(target)

    def draw(key: Key, n: int) -> Ends:
        first_key, last_key = jax.random.split(key)
        return first(first_key, n), last(last_key, n)

    return draw


def refine(
    key: Key,
    field: Field,
    geometry: Geometry,
    ratio: Potential,
    draw: Draw,
    *,
    pairs: Diracs | None = None,
    start: Params | None = None,
    rounds: int = 2,
    num_pairs: int = 1 << 15,
    matching_steps: int = 2000,
    refinement_steps: int = 300,
    batch: int = 1024,
    learning_rate: float = 3e-2,
    refinement_rate: float = 3e-4,
    ratio_rate: float = 3e-3,
    on_chunk: Callable[[str, Chunk], None] = lambda phase, chunk: None,
    **options: Any,
) -> Params:
    """Parameters of the flow of optimal transport between two samples, from pairs that need not be optimal.

    The field is matched to the pairs, then again, ``rounds`` times, to the pairs that it makes itself; then
    `q_flow` corrects the ends by what classifiers see there. Weights and masses count where ``alpha`` is
    finite.

    Args:
      field, geometry: of the flow; of a potential, for else nothing rids a flow of what rotates.
      ratio: of the classifiers.
      draw: of both ends, see `between`.
      pairs: to begin with, such as `flow_pairs` of any other flow or a `static.semi_coupling`; independent
        ones by default.
      start: parameters to begin with, those of ``field.init`` by default.
      rounds: of matching to one's own pairs.
      num_pairs, matching_steps, learning_rate: of matching. With 0 steps ``start`` is refined as it is.
      refinement_steps, batch, refinement_rate, ratio_rate, options: of `q_flow`; 0 steps leave it out.
      on_chunk: called on the host as in `training.run`, after the name of the phase, matching or refinement.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good parameters.
    """
    init_key, pair_key, refine_key, *keys = jax.random.split(key, rounds + 4)
    params = jax.jit(field.init)(init_key) if start is None else start
    if matching_steps > 0:
        if pairs is None:
            pairs = independent_pairs(pair_key, *draw(pair_key, num_pairs), num_pairs)
        match = partial(_straightened, field, geometry, matching_steps, learning_rate, on_chunk)
        params = match(keys, params, pairs, lambda own: draw(own, num_pairs))
    if refinement_steps == 0:
        return params
    optimisers = (
        late_adam(refinement_steps, refinement_rate),
        optax.adam(refinement_schedule(4 * refinement_steps, ratio_rate)),
    )
    defaults = {"transport_weight": 1e-4, "matching_weight": 1.0, "num_steps": 4, "average_decay": 0.98}
    method = q_flow(field, geometry, ratio, *optimisers, **(defaults | options))
    begin_key, refine_key = jax.random.split(refine_key)
    begun = init_params(field, ratio, begin_key)._replace(flow=params)
    return _corrected(refine_key, method, begun, draw, batch, refinement_steps, on_chunk)


def refinement_schedule(num_steps: int, rate: float, *, wait: float = 0.0) -> optax.Schedule:
    """0 for a share ``wait`` of the steps, then ``rate``, falling to 0 along a cosine."""
    late = int(wait * num_steps)
    return optax.join_schedules(
        [optax.constant_schedule(0.0), optax.cosine_decay_schedule(rate, num_steps - late)], [late]
    )


def late_adam(num_steps: int, rate: float) -> optax.GradientTransformation:
    """Adam that waits a quarter of the steps, in which classifiers learn what there is to correct."""
    schedule = refinement_schedule(num_steps, rate, wait=0.25)
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


def fit_ratio(
    key: Key,
    ratio: Potential,
    time: Float[Array, " k"],
    bridge: Bridge,
    *,
    num_steps: int = 1500,
    learning_rate: float = 3e-2,
    weight_decay: float = 0.0,
    num_nodes: int = 2,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
) -> tuple[LogRatio, Params]:
    """Learn `density_ratio` on a bridge; returns ``log_ratio(params, x)`` and its parameters.

    Args:
      ratio, time, num_nodes: as in `density_ratio`.
      bridge: see `flow_bridge` and `linear_bridge`.
      num_steps, learning_rate, weight_decay: of `training.cosine_muon`.
      on_chunk: as in `training.run`.

    Raises:
      training.NonFiniteError: training diverged; its state is what would be returned, of the last good state.
    """
    init_key, train_key = jax.random.split(key)
    optimiser = cosine_muon(num_steps, learning_rate, weight_decay=weight_decay)
    method = density_ratio(ratio, time, optimiser, num_nodes=num_nodes, average_decay=0.98)
    state = method.init(jax.jit(ratio.init)(init_key))
    value = log_ratio(ratio, time, num_nodes=num_nodes)
    with last_good(lambda state: (value, state.average), "the ratio"):
        state = run(method, train_key, state, bridge, num_steps, on_chunk=on_chunk)
    return value, state.average


def _straightened(
    field: Field,
    geometry: Geometry,
    num_steps: int,
    learning_rate: float,
    on_chunk: Callable[[str, Chunk], None],
    keys: list[Key],
    params: Params,
    pairs: Diracs,
    draw: Callable[[Key], Ends],
) -> Params:
    """Matching to the pairs, then to those of the flow itself, with one key for each round."""
    own_pairs = jax.jit(partial(flow_pairs, field, geometry))
    for index, own in enumerate(keys):
        draw_key, match_key = jax.random.split(own)
        now = own_pairs(params, *draw(draw_key)) if index else pairs
        match = flow_matching(field, geometry, now)
        tell = partial(on_chunk, "matching")
        with last_good(lambda params: params, "matching"):
            params = fit_matching(match_key, params, match, num_steps, tell, learning_rate=learning_rate)
    return params


def _corrected(
    key: Key,
    method: Method,
    params: QParams,
    draw: Draw,
    batch: int,
    num_steps: int,
    on_chunk: Callable[[str, Chunk], None],
) -> Params:
    state, tell = method.init(params), partial(on_chunk, "refinement")
    with last_good(lambda state: state.flow.average, "refinement"):
        return run(method, key, state, lambda k: draw(k, batch), num_steps, on_chunk=tell).flow.average
