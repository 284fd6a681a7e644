"""Plans, matching on them, refinement: a potential between two laws, a field through snapshots."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from wfr_flows import static
from wfr_flows.dynamics import Field, Geometry
from wfr_flows.geodesics.matching import Loss, fit_matching, matching, zero_loss
from wfr_flows.geodesics.snapshots import Chain, chain_matching, push_misfit
from wfr_flows.geodesics.uot_gen import Schedule, uot_gen
from wfr_flows.measures import Distribution, Particles, spread_ends
from wfr_flows.potentials import Potential
from wfr_flows.training import Chunk, Method, cosine_muon, last_good, run
from wfr_flows.typing import Key, Params, Scalar

_PLAN_TOLERANCE = 1e-3


def fit(
    key: Key,
    potential: Potential,
    geometry: Geometry,
    source: Distribution,
    target: Distribution,
    *,
    start: Params | None = None,
    num_pairs: int = 2000,
    matching_steps: int = 3000,
    refinement_steps: int = 200,
    batch: int = 1024,
    action_weight: float | Schedule = 0.0,
    velocity_weight: float | Schedule = 0.0,
    matching_weight: float = 10.0,
    average_decay: float = 0.95,
    learning_rate: float = 1e-2,
    on_chunk: Callable[[str, Chunk], None] = lambda phase, chunk: None,
    **options: Any,
) -> Params:
    """Parameters of the potential of the spherical geodesic between two laws.

    Training begins with `matching` on the certified plan between particles of both ends, and goes on, where
    the density of the target is known, with `uot_gen` on fresh batches plus a multiple of `matching`.

    Args:
      potential, geometry: the former of the dimension of both laws, the latter spherical.
      source, target: what `Distribution.spread` gives is learned from.
      start: initial parameters, by default those of ``potential.init``.
      matching_steps, refinement_steps: of either phase; 0 leaves one out (and with matching, the plan).
      num_pairs, batch: particles of either end, at most, for the plan and in a refinement step.
      action_weight, velocity_weight, average_decay, learning_rate, options: of the refinement, see `uot_gen`.
      matching_weight: of matching in refinement; more is closer to the plan's geodesic, less exact in law.
      on_chunk: called on the host as in `training.run`, after the name of the phase, matching or refinement.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good parameters.
    """
    init_key, match_key, refine_key = jax.random.split(key, 3)
    params, match = potential.init(init_key) if start is None else start, zero_loss
    if matching_steps > 0:
        plan_key, match_key = jax.random.split(match_key)
        plan = _diracs(*spread_ends(source, target, num_pairs)(plan_key), geometry.alpha)
        match = matching(potential, geometry, plan)
        params = _phase("matching", on_chunk, match_key, params, match, matching_steps)
    if refinement_steps == 0 or target.log_density is None:
        return params
    method = uot_gen(
        potential,
        geometry,
        target.log_density,
        cosine_muon(refinement_steps, learning_rate),
        average_decay=average_decay,
        regulariser=_scaled(matching_weight, match),
        action_weight=action_weight,
        velocity_weight=velocity_weight,
        **options,
    )
    ends = spread_ends(source, target, batch)
    return _refined(method, refine_key, params, ends, refinement_steps, on_chunk)


def fit_chain(
    key: Key,
    field: Field,
    geometry: Geometry,
    chain: Chain,
    snapshots: Sequence[Particles],
    *,
    start: Params | None = None,
    matching_steps: int = 8000,
    refinement_steps: int = 200,
    misfit_weight: float = 10.0,
    blur: float = 0.005,
    weight_decay: float = 0.003,
    learning_rate: float = 1e-3,
    on_chunk: Callable[[str, Chunk], None] = lambda phase, chunk: None,
) -> Params:
    """Parameters of the field that carries the first of several snapshots through the others.

    `chain_matching` comes first. Then a few steps of it plus ``misfit_weight`` times `push_misfit` see what
    becomes of particles, and bring back those that stray.

    Args:
      field, geometry: of the windows, as in `chain_matching`.
      chain: the plans, from `chain`.
      snapshots: what the plans are between, at ``chain.time``; their spread should be about 1.
      start: parameters to begin with; those of ``field.init`` by default.
      matching_steps, refinement_steps: of either phase; 0 leaves one out.
      misfit_weight: of the simulation's loss.
      blur: of `chain_matching`.
      weight_decay: a little keeps the field tame where there is no data.
      learning_rate: of the refinement.
      on_chunk: called on the host as in `training.run`, after the name of the phase, matching or refinement.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good parameters.
    """
    init_key, match_key, refine_key = jax.random.split(key, 3)
    params = jax.jit(field.init)(init_key) if start is None else start
    match = chain_matching(field, geometry, chain, blur=blur)
    misfit = _scaled(misfit_weight, push_misfit(field, geometry, chain.time, snapshots))
    params = _phase("matching", on_chunk, match_key, params, match, matching_steps, weight_decay=weight_decay)
    return _phase(
        "refinement",
        on_chunk,
        refine_key,
        params,
        lambda params, key: match(params, key) + misfit(params, key),
        refinement_steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        # The first steps of Muon are as large as the later ones, and would scatter particles.
        warmup=refinement_steps // 10,
    )


def _phase(
    phase: str,
    on_chunk: Callable[[str, Chunk], None],
    key: Key,
    params: Params,
    loss: Loss,
    num_steps: int,
    **options: Any,
) -> Params:
    """`fit_matching` under the name of a phase, for its reports and its failure."""
    with last_good(lambda params: params, phase):
        return fit_matching(key, params, loss, num_steps, partial(on_chunk, phase), **options)


def _refined(
    method: Method,
    key: Key,
    params: Params,
    sample: Callable[[Key], tuple[Particles, Particles]],
    num_steps: int,
    on_chunk: Callable[[str, Chunk], None],
) -> Params:
    """The average of the parameters over the refinement."""
    with last_good(lambda state: state.average, "refinement"):
        state = method.init(params)
        return run(method, key, state, sample, num_steps, on_chunk=partial(on_chunk, "refinement")).average


def _scaled(factor: float, loss: Loss) -> Loss:
    return lambda params, key: factor * loss(params, key)


@jax.jit
def _diracs(source: Particles, target: Particles, alpha: Scalar) -> static.Diracs:
    result = static.spherical_wfr(source, target, alpha, tolerance=_PLAN_TOLERANCE)
    return static.semi_coupling(result, source, target, alpha)
