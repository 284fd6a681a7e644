"""How near a potential flow and its critic are to the optimality conditions of [W1W2]."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows import metrics
from wfr_flows.dynamics import Geometry, potential_field, time_grid
from wfr_flows.measures import Particles
from wfr_flows.numerics import donsker_varadhan
from wfr_flows.potentials import Critic, Potential
from wfr_flows.proximal.bounds import Bound
from wfr_flows.proximal.carry import EULER, carry_with_costs
from wfr_flows.proximal.method import between, slopes
from wfr_flows.typing import Key, Params, Scalar


class Diagnostics(NamedTuple):
    """Scalars; the first two tell what was reached, the next three vanish at the optimum.

    Attributes:
      divergence: the bound.
      action: ``∫ Σ w (½|v|² + ½alpha g²) dt``.
      residual: of the Hamilton-Jacobi equation, ``E∫|∂ₜΦ - ½|v|² - ½alpha g²|`` over the action.
      terminal_gap: standard deviation of ``λΦ(t, x(t)) - φ(x(1)) - λ(1-t)½|v|²`` at the last time ``t``
        before the end, over that of ``φ(x(1))``: the condition ``λΦ(1, ·) = φ`` up to a constant, carried to
        ``t`` along a straight line, where ``Φ`` is still smooth if the target lives on a manifold. A critic
        learned from samples has noise of deviation about ``√(2 divergence)`` at a small divergence: where
        ``λΦ`` varies by less, as it does at a small ``λ``, the gap stays near 1 and tells nothing.
      bend: 1 minus `metrics.straightness`.
      slope_on_data, slope_between: the largest ``|∇φ|`` at the target and on lines from it to the samples.
    """

    divergence: Scalar
    action: Scalar
    residual: Scalar
    terminal_gap: Scalar
    bend: Scalar
    slope_on_data: Scalar
    slope_between: Scalar


def diagnose(
    potential: Potential,
    geometry: Geometry,
    critic: Critic,
    params: Params,
    critic_params: Params,
    key: Key,
    source: Particles,
    target: Particles,
    *,
    kinetic_weight: float = 0.05,
    bound: Bound = donsker_varadhan,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
) -> Diagnostics:
    """The conditions of optimality on samples of both ends.

    Args:
      potential, geometry, critic, params, critic_params: as trained by `proximal`.
      key: for the points between.
      source, target: weighted particles, at best not those of the training.
      kinetic_weight, bound, num_steps, solver: as in `proximal`.
    """
    field = potential_field(potential, geometry)
    carried = carry_with_costs(field, geometry, params, source, time_grid(num_steps), solver=solver)
    path, moved = carried.trajectory, carried.trajectory.at(-1)
    values = jax.vmap(critic.value, (None, 0))
    at_end, at_target = values(critic_params, moved.position), values(critic_params, target.position)
    weights = {"weight_p": moved.weight, "weight_q": target.normalise().weight}
    jets = jax.vmap(potential.jet, (None, None, 0))(params, path.time[-2], path.position[-2])
    left = 1 - path.time[-2]
    ahead = kinetic_weight * (jets.value - 0.5 * left * jnp.sum(jets.gradient**2, axis=-1)) - at_end
    return Diagnostics(
        bound(at_end, at_target, **weights),
        carried.action,
        carried.residual / carried.action,
        _deviation(ahead, moved) / _deviation(at_end, moved),
        1 - metrics.straightness(path.position, source.normalise().weight),
        jnp.max(slopes(critic, critic_params, target.position)),
        jnp.max(slopes(critic, critic_params, between(key, moved, target))),
    )


def _deviation(value, measure: Particles) -> Scalar:
    mean = jnp.sum(measure.weight * value)
    return jnp.sqrt(jnp.sum(measure.weight * (value - mean) ** 2))
