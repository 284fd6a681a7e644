"""UOT-gen training as a method: the objective, its weights as schedules, a moving average of parameters."""

from collections.abc import Callable

import diffrax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics.density import LogDensity
from wfr_flows.geodesics.matching import Loss, zero_loss
from wfr_flows.geodesics.objective import objective
from wfr_flows.measures import Particles
from wfr_flows.potentials import Potential
from wfr_flows.training import Method, TrainState, gradient_method
from wfr_flows.typing import ArrayLike, Key, Params

Schedule = Callable[[ArrayLike], ArrayLike]
"""``step -> value``, as in optax."""


def uot_gen(
    potential: Potential,
    geometry: Geometry,
    target_log_density: LogDensity,
    optimiser: optax.GradientTransformation,
    *,
    action_weight: float | Schedule = 0.01,
    velocity_weight: float | Schedule = 0.01,
    residual_weight: float | Schedule = 0.0,
    num_steps: int = 8,
    solver: diffrax.AbstractSolver | None = None,
    average_decay: float = 0.0,
    regulariser: Loss = zero_loss,
) -> Method:
    """Descent on the UOT-gen `objective` ([WFR] algorithm 1); at ``alpha = inf`` that of OT-Flow.

    Batches are ``(source, target)``, weighted `Particles` of both ends: the same every time for full-batch
    training, or fresh ones. Any parameters are a legal start: those of `matching`, or of an earlier problem.

    Args:
      potential, geometry, target_log_density, num_steps, solver: as in `objective`.
      optimiser: an optax transformation.
      action_weight, velocity_weight, residual_weight: numbers, or schedules of the step.
      average_decay: as in `training.gradient_method`.
      regulariser: ``(params, key) -> scalar``, added to the total; a multiple of `matching` keeps what
        matching has learned of the geodesic while the ends are corrected.

    Returns:
      A `training.Method`; the info of a step is ``(total, Objective)``.
    """
    weights = {
        "action_weight": action_weight,
        "velocity_weight": velocity_weight,
        "residual_weight": residual_weight,
    }

    def method(step: ArrayLike) -> Method:
        now = {name: weight(step) if callable(weight) else weight for name, weight in weights.items()}
        evaluate = objective(
            potential, geometry, target_log_density, num_steps=num_steps, solver=solver, **now
        )

        def loss(params: Params, key: Key, batch: tuple[Particles, Particles]):
            terms = evaluate(params, *batch)
            return terms.total + regulariser(params, key), terms

        return gradient_method(loss, optimiser, average_decay=average_decay)

    def step(key: Key, state: TrainState, batch: tuple[Particles, Particles]):
        return method(state.step).step(key, state, batch)

    # Built once here, so that mistakes are refused before the first step.
    return Method(method(jnp.zeros((), jnp.int32)).init, step)
