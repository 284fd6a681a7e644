"""From a source and weighted data to a generator: the start, then proximal training."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import numpy as np
import optax

from wfr_flows import training
from wfr_flows.dynamics import Field, Geometry
from wfr_flows.geodesics import fit_matching
from wfr_flows.measures import Distribution, spread_ends
from wfr_flows.potentials import Critic
from wfr_flows.proximal.carry import EULER
from wfr_flows.proximal.method import proximal
from wfr_flows.proximal.start import Lines, optimal_lines, straight_lines
from wfr_flows.proximal.straighten import straighten
from wfr_flows.training import Chunk, Method, MinimaxState, cosine_muon, last_good
from wfr_flows.typing import Key

_START_RATE = 1e-2
# Share of the steps before which the critic, which knows nothing at first, hardly moves the flow.
_WARMUP = 0.2


def fit(
    key: Key,
    field: Field,
    geometry: Geometry,
    critic: Critic,
    source: Distribution,
    target: Distribution,
    *,
    start_steps: int = 12000,
    steps: int = 500,
    straighten_steps: int = 6000,
    num_lines: int = 20300,
    batch: int = 1024,
    flow_rate: float = 1e-4,
    critic_rate: float = 3e-3,
    bend_weight: float = 100.0,
    inner_steps: int = 5,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
    on_start: Callable[[Chunk], None] = lambda chunk: None,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
    on_straighten: Callable[[Chunk], None] = lambda chunk: None,
    **options: Any,
) -> MinimaxState:
    """Learn a generator: straight lines of optimal assignments, `proximal` training, straightening.

    Args:
      key: for samples, parameters and batches.
      field, geometry, critic: as in `proximal`.
      source, target: what is carried, and to where; data become one by `measures.empirical`.
      start_steps, steps, straighten_steps: of `straight_lines`, `proximal` and, for the average of the flow's
        parameters and at ``alpha = inf`` alone, `straighten`; 0 of the first or the last for none.
      num_lines, batch: of `optimal_lines`, and particles of either end in a step.
      flow_rate, critic_rate: of `training.cosine_muon`; without a start the flow wants more.
      bend_weight: of `proximal` at ``alpha = inf``; where weights change, geodesics have uneven speed.
      inner_steps, num_steps, solver: as in `proximal`; the last two of `straighten` as well.
      on_start, on_chunk, on_straighten: as in `training.run`, for the three trainings.
      options: others of `proximal` alone; ``average_decay`` is .99. Not ``outer_steps``, which is 1.

    Returns:
      The last `MinimaxState`: ``average`` is what to sample with, ``inner`` the critic.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good generator.
      ValueError: a start with a finite ``alpha``, or what `proximal` refuses.
    """
    still = _keeps_weights(geometry, start_steps, options)
    plan_key, init_key, critic_key, start_key, train_key, last_key = jax.random.split(key, 6)
    players = _optimisers(steps, flow_rate, steps * inner_steps, critic_rate)
    way: dict[str, Any] = {"num_steps": num_steps, "solver": solver}
    options = {"average_decay": 0.99, "bend_weight": bend_weight * still} | way | options
    method = proximal(field, geometry, critic, *players, inner_steps=inner_steps, **options)
    state = method.init((jax.jit(field.init)(init_key), jax.jit(critic.init)(critic_key)))
    if start_steps:
        lines = optimal_lines(plan_key, source, target, num_lines)
        state = _started(start_key, field, lines, method, state, start_steps, on_start)
    draw = spread_ends(source, target, batch)
    state = training.run(method, train_key, state, draw, steps, chunk_size=min(50, steps), on_chunk=on_chunk)
    return _straightened(last_key, field, source, state, straighten_steps * still, on_straighten, **way)


def _keeps_weights(geometry: Geometry, start_steps: int, options: dict[str, Any]) -> bool:
    if "outer_steps" in options:
        raise ValueError("outer_steps is 1 here; give more steps instead.")
    still = bool(np.isinf(geometry.alpha))
    if start_steps and not still:
        raise ValueError(f"alpha is {geometry.alpha} and the start keeps weights; give start_steps = 0.")
    return still


def _optimisers(
    flow_updates: int, flow_rate: float, critic_updates: int, critic_rate: float
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    flow = cosine_muon(flow_updates, flow_rate, warmup=int(_WARMUP * flow_updates))
    return flow, cosine_muon(critic_updates, critic_rate)


def _started(
    key: Key,
    field: Field,
    lines: Lines,
    method: Method,
    state: MinimaxState,
    steps: int,
    on_chunk: Callable[[Chunk], None],
) -> MinimaxState:
    match = straight_lines(field, lines)
    with last_good(lambda params: method.init((params, state.inner)), "start"):
        params = fit_matching(key, state.outer, match, steps, on_chunk, learning_rate=_START_RATE)
    return method.init((params, state.inner))


def _straightened(
    key: Key,
    field: Field,
    source: Distribution,
    state: MinimaxState,
    steps: int,
    on_chunk: Callable[[Chunk], None],
    **way: Any,
) -> MinimaxState:
    if steps == 0:
        return state
    # Half-way straightened lines are no better than those before.
    with last_good(lambda _: state, "straightening"):
        average = straighten(key, field, state.average, source, steps, on_chunk=on_chunk, **way)
    return state._replace(average=average)
