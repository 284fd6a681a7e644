"""From a source and weighted data to a generator: the start, then proximal training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffrax
import jax
import numpy as np

from wfr_flows import training
from wfr_flows.dynamics import Field, Geometry
from wfr_flows.geodesics import fit_matching
from wfr_flows.measures import Distribution, spread_ends
from wfr_flows.potentials import Critic
from wfr_flows.proximal.carry import EULER
from wfr_flows.proximal.method import proximal
from wfr_flows.proximal.start import optimal_lines, straight_lines
from wfr_flows.proximal.straighten import straighten
from wfr_flows.training import Chunk, MinimaxState, NonFiniteError, cosine_muon
from wfr_flows.typing import Key, PyTree

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
    num_particles: int = 1450,
    num_plans: int = 14,
    batch: int = 1024,
    flow_rate: float = 1e-4,
    critic_rate: float = 3e-3,
    bend_weight: float = 100.0,
    inner_steps: int = 5,
    outer_steps: int = 1,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
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
      inner_steps, outer_steps: as in `training.minimax`.
      num_steps, solver: of the flow, in `proximal` and in `straighten`.
      options: others of `proximal` alone; ``average_decay`` is .99 if not given.

    Returns:
      The last `MinimaxState`: ``average`` is what to sample with, ``inner`` the critic.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good
        `MinimaxState`: where straightening did, the generator before it.
      ValueError: a start with a finite ``alpha``, or what `proximal` refuses.
    """
    still = bool(np.isinf(geometry.alpha))
    if start_steps and not still:
        raise ValueError(f"alpha is {geometry.alpha} and the start keeps weights; give start_steps = 0.")
    plan_key, init_key, critic_key, start_key, train_key, last_key = jax.random.split(key, 6)
    way: dict[str, Any] = {"num_steps": num_steps, "solver": solver}
    options = {"average_decay": 0.99, "bend_weight": bend_weight * still} | way | options
    flow_updates = steps * outer_steps
    players = (
        cosine_muon(flow_updates, flow_rate, warmup=int(_WARMUP * flow_updates)),
        cosine_muon(steps * inner_steps, critic_rate),
    )
    counts = {"inner_steps": inner_steps, "outer_steps": outer_steps}
    method = proximal(field, geometry, critic, *players, **counts, **options)
    params, judge = jax.jit(field.init)(init_key), jax.jit(critic.init)(critic_key)
    if start_steps:
        lines = optimal_lines(plan_key, source, target, size=num_particles, repeats=num_plans)
        match = straight_lines(field, lines)
        with _failing_with(lambda state: method.init((state.params, judge))):
            params = fit_matching(start_key, params, match, start_steps, on_start, learning_rate=_START_RATE)
    draw, state, each = spread_ends(source, target, batch), method.init((params, judge)), min(50, steps)
    state = training.run(method, train_key, state, draw, steps, chunk_size=each, on_chunk=on_chunk)
    if still and straighten_steps:
        with _failing_with(lambda _: state):
            average = straighten(
                last_key, field, state.average, source, straighten_steps, on_chunk=on_straighten, **way
            )
        state = state._replace(average=average)
    return state


@contextmanager
def _failing_with(generator: Callable[[PyTree], MinimaxState]) -> Iterator[None]:
    """The state of an error as the generator that it leaves."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(error.step, generator(error.state)) from error
