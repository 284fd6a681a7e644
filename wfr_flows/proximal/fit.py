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
from wfr_flows.proximal.start import optimal_lines, straight_lines
from wfr_flows.proximal.straighten import straighten
from wfr_flows.training import Chunk, MinimaxState, cosine_muon
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
    straighten_steps: int = 4000,
    num_particles: int = 2900,
    num_plans: int = 1,
    batch: int = 1024,
    flow_rate: float = 5e-4,
    critic_rate: float = 3e-3,
    bend_weight: float = 100.0,
    on_start: Callable[[Chunk], None] = lambda chunk: None,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
    on_straighten: Callable[[Chunk], None] = lambda chunk: None,
    **options: Any,
) -> MinimaxState:
    """Learn a generator: straight lines of an optimal assignment, `proximal` training, straightening.

    Args:
      key: for samples, parameters and batches.
      field, geometry, critic: as in `proximal`.
      source, target: what is carried, and to where; data become one by `measures.empirical`.
      start_steps, steps, straighten_steps: of `straight_lines`, `proximal` and, for the average of the flow's
        parameters and at ``alpha = inf`` alone, `straighten`; 0 of the first or the last for none.
      num_particles, num_plans, batch: particles of either end in an optimal assignment, how many of these,
        and particles in a step.
      flow_rate, critic_rate: of `training.cosine_muon`; without a start the flow wants more.
      bend_weight: of `proximal` at ``alpha = inf``; where weights change, geodesics have uneven speed.
      on_start, on_chunk, on_straighten: as in `training.run`, for the three trainings.
      options: of `proximal`.

    Returns:
      The last `MinimaxState`: ``average`` is what to sample with, ``inner`` the critic.

    Raises:
      training.NonFiniteError: training diverged.
      ValueError: a start with a finite ``alpha``, or what `proximal` refuses.
    """
    still = bool(np.isinf(geometry.alpha))
    if start_steps and not still:
        raise ValueError(f"alpha is {geometry.alpha} and the start keeps weights; give start_steps = 0.")
    plan_key, init_key, critic_key, start_key, train_key, last_key = jax.random.split(key, 6)
    options = {"average_decay": 0.99, "bend_weight": bend_weight * still} | options
    players = _optimisers(steps, flow_rate, critic_rate, **options)
    method = proximal(field, geometry, critic, *players, **options)
    params = jax.jit(field.init)(init_key)
    if start_steps:
        lines = optimal_lines(plan_key, source, target, size=num_particles, repeats=num_plans)
        match = straight_lines(field, lines)
        params = fit_matching(start_key, params, match, start_steps, on_start, learning_rate=_START_RATE)
    state = method.init((params, jax.jit(critic.init)(critic_key)))
    draw = spread_ends(source, target, batch)
    state = training.run(method, train_key, state, draw, steps, chunk_size=min(50, steps), on_chunk=on_chunk)
    return _straightened(last_key, field, state, source, straighten_steps * still, on_straighten, **options)


def _optimisers(
    steps: int, flow_rate: float, critic_rate: float, *, outer_steps: int = 1, inner_steps: int = 5, **_: Any
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Of the flow and of the critic, by the updates of either."""
    updates = steps * outer_steps
    flow = cosine_muon(updates, flow_rate, warmup=int(_WARMUP * updates))
    return flow, cosine_muon(steps * inner_steps, critic_rate)


def _straightened(
    key: Key,
    field: Field,
    state: MinimaxState,
    source: Distribution,
    steps: int,
    on_chunk: Callable[[Chunk], None],
    *,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
    **_: Any,
) -> MinimaxState:
    if steps == 0:
        return state
    shared = {"num_steps": num_steps, "solver": solver, "on_chunk": on_chunk}
    return state._replace(average=straighten(key, field, state.average, source, steps, **shared))
