"""The generator: weighted particles along a field, and what their way costs."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Field, Geometry, Rates, Trajectory, batched, integrate
from wfr_flows.measures import Particles
from wfr_flows.typing import Array, Float, Params, Scalar

EULER = diffrax.Euler()
"""One stage a step, and none at the end of time: exact on straight lines."""


class Carried(NamedTuple):
    """Particles along a field.

    Attributes:
      trajectory: at every node of the grid, mass 1; log-determinants are 0.
      action: ``∫ Σ w (½|v|² + ½alpha g²) dt``, by the same steps as the positions.
      residual: ``∫ Σ w |∂ₜΦ - ½|v|² - ½alpha g²| dt``; 0 for fields without potential.
      bend: ``Σ w(0) (∫½|v|² dt - ½|x(1) - x(0)|²)``, half the variance of the velocity along a path; 0 where
        all of them are straight and of even speed, and one step is as good as many.
    """

    trajectory: Trajectory
    action: Scalar
    residual: Scalar
    bend: Scalar


class _State(NamedTuple):
    position: Float[Array, "n d"]
    log_weight: Float[Array, " n"]
    action: Scalar
    residual: Scalar
    bend: Scalar


def carry_with_costs(
    field: Field,
    geometry: Geometry,
    params: Params,
    source: Particles,
    grid: Float[Array, " k"],
    *,
    solver: diffrax.AbstractSolver = EULER,
    frozen: bool = False,
) -> Carried:
    """`dynamics.carry` to the measure of mass 1, with the action and the Hamilton-Jacobi residual of the way.

    In a spherical geometry growth counts up to its mean over the particles, so that they keep mass 1.

    Args:
      field, params: motion and growth, see `dynamics.Field`.
      geometry: spherical; at ``alpha = inf`` weights do not change.
      source: weighted particles at ``grid[0]``, of any mass, made 1.
      grid: ``[k]`` increasing times.
      solver: as in `dynamics.integrate`.
      frozen: costs see the positions as constants, as in the public code of [W1W2]: their gradient then
        leaves out what one step does to the cost of the later ones.
    """
    source = source.normalise()
    rates_at = batched(field)

    def move(t: Scalar, state: _State, params: Params) -> _State:
        rates = rates_at(params, t, state.position)
        weight = jax.nn.softmax(state.log_weight)
        growth = _centred(rates.growth, weight)
        if not frozen:
            return _State(rates.velocity, growth, *_costs(rates, weight, source, geometry))
        place, weight = jax.lax.stop_gradient((state.position, weight))
        return _State(rates.velocity, growth, *_costs(rates_at(params, t, place), weight, source, geometry))

    zero = jnp.zeros((), source.position.dtype)
    states = integrate(move, _State(*source, zero, zero, zero), params, grid, solver=solver)
    # Where growth is centred only step by step, rounding is taken off.
    log_weight = jax.nn.log_softmax(states.log_weight, axis=-1)
    time = grid.astype(log_weight.dtype)
    trajectory = Trajectory(time, states.position, log_weight, jnp.zeros_like(log_weight))
    way = jnp.sum((states.position[-1] - states.position[0]) ** 2, axis=-1)
    bend = states.bend[-1] - 0.5 * jnp.sum(source.weight * way)
    return Carried(trajectory, states.action[-1], states.residual[-1], bend)


def _costs(
    rates: Rates, weight: Float[Array, " n"], source: Particles, geometry: Geometry
) -> tuple[Scalar, Scalar, Scalar]:
    """Of the action, of the residual, and of the kinetic energy by the weights at the start."""
    energy = geometry.energy(rates.velocity, _centred(rates.growth, weight))
    action = jnp.sum(weight * energy)
    started = 0.5 * jnp.sum(source.weight * jnp.sum(rates.velocity**2, axis=-1))
    if rates.energy is None:
        return action, jnp.zeros_like(action), started
    return action, jnp.sum(weight * jnp.abs(rates.energy - energy)), started


def _centred(growth: Float[Array, " n"], weight: Float[Array, " n"]) -> Float[Array, " n"]:
    return growth - jnp.sum(weight * growth)
