"""The weighted flow of a potential: positions, weights and log-determinants along a time grid."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows.dynamics.field import Field, batched
from wfr_flows.dynamics.geometry import Geometry
from wfr_flows.dynamics.integrate import VectorField, integrate
from wfr_flows.measures import Particles
from wfr_flows.potentials import Jet, Potential
from wfr_flows.typing import Array, Float, Params, Scalar


class FlowState(NamedTuple):
    """What one particle, or a batch of them, carries along a flow.

    Attributes:
      position: ``[n, d]``.
      log_weight: ``[n]``, in the gauge ``Φ̄ = 0``: normalise to read it as a probability.
      log_det: ``[n]``, ``log |det ∂z(t)/∂z(0)|``.
    """

    position: Float[Array, "n d"]
    log_weight: Float[Array, " n"]
    log_det: Float[Array, " n"]


class Trajectory(NamedTuple):
    """What a solve returns: a `FlowState` at every node of a time grid.

    Attributes:
      time: ``[k]``.
      position: ``[k, n, d]``.
      log_weight: ``[k, n]``. For a spherical geometry each row sums to the mass of the first.
      log_det: ``[k, n]``.
    """

    time: Float[Array, " k"]
    position: Float[Array, "k n d"]
    log_weight: Float[Array, "k n"]
    log_det: Float[Array, "k n"]

    def at(self, index: int) -> Particles:
        """The weighted particles at node ``index``."""
        return Particles(self.position[index], self.log_weight[index])


def weighted_field(potential: Potential, geometry: Geometry, *, log_det: bool = True) -> VectorField:
    """``ż = -∇Φ``, ``d/dt log w = -Φ/alpha``, ``ℓ̇ = -tr∇²Φ`` on a batch ([WFR] eq. 4.9, gauge ``Φ̄ = 0``).

    The mean ``Φ̄(t)`` only shifts all log-weights together, so particles are integrated independently and
    normalised afterwards. On a reversed time grid this same field is the reverse flow. Without ``log_det``
    the Laplacian is not computed and ``ℓ`` stays 0.
    """
    inverse_alpha = geometry.inverse_alpha

    def field(t: Scalar, state: FlowState, params: Params) -> FlowState:
        jet: Jet = jax.vmap(potential.jet, (None, None, 0))(params, t, state.position)
        growth = jnp.zeros_like(jet.value)
        if not geometry.balanced:
            growth = -jet.value * inverse_alpha.astype(growth.dtype)
        divergence = jet.laplacian if log_det else jnp.zeros_like(growth)
        return FlowState(-jet.gradient, growth, -divergence)

    return field


def time_grid(num_steps: int, *, reverse: bool = False) -> Float[Array, " k"]:
    """``num_steps`` equal steps over [0, 1]; from 1 down to 0 if ``reverse``."""
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; give at least 1.")
    grid = jnp.linspace(0.0, 1.0, num_steps + 1)
    return grid[::-1] if reverse else grid


def flow(
    potential: Potential,
    geometry: Geometry,
    params: Params,
    measure: Particles,
    grid: Float[Array, " k"],
    *,
    log_det: bool = True,
    solver: diffrax.AbstractSolver | None = None,
    tolerance: float | None = None,
) -> Trajectory:
    """Carry weighted particles along the flow of a potential.

    Args:
      potential, geometry, params: the field, see `weighted_field`.
      measure: particles at time ``grid[0]``.
      grid: ``[k]`` times; decreasing for the reverse flow.
      log_det: whether to follow the log-determinant, which needs the Laplacian.
      solver, tolerance: as in `integrate`.

    Returns:
      A `Trajectory`. In a spherical geometry weights are normalised at every node to the initial mass.
    """
    initial = FlowState(measure.position, measure.log_weight, jnp.zeros_like(measure.log_weight))
    field = weighted_field(potential, geometry, log_det=log_det)
    states = integrate(field, initial, params, grid, solver=solver, tolerance=tolerance)
    log_weight = states.log_weight
    if geometry.spherical:
        log_mass = jax.nn.logsumexp(measure.log_weight)
        log_weight = jax.nn.log_softmax(log_weight, axis=-1) + log_mass
    return Trajectory(grid.astype(log_weight.dtype), states.position, log_weight, states.log_det)


def carry(
    field: Field,
    geometry: Geometry,
    params: Params,
    measure: Particles,
    grid: Float[Array, " k"],
    *,
    log_det: bool = False,
    solver: diffrax.AbstractSolver | None = None,
    tolerance: float | None = None,
) -> Trajectory:
    """Carry weighted particles along any field, forward or back.

    Args:
      field, params: see `dynamics.Field`.
      geometry: at ``alpha = inf`` nothing grows, whatever the field says; a spherical one keeps the mass.
      measure: particles at time ``grid[0]``.
      grid: ``[k]`` times; decreasing for the way back.
      log_det: whether to follow the log-determinant, by ``d`` Jacobian-vector products; 0 otherwise.
      solver, tolerance: as in `integrate`.

    Returns:
      A `Trajectory` with a node at every time.
    """
    start = FlowState(measure.position, measure.log_weight, jnp.zeros_like(measure.log_weight))
    motion = field_motion(field, geometry, log_det=log_det)
    states = integrate(motion, start, params, grid, solver=solver, tolerance=tolerance)
    log_weight = states.log_weight
    if geometry.spherical:
        log_weight = jax.nn.log_softmax(log_weight, axis=-1) + jax.nn.logsumexp(measure.log_weight)
    return Trajectory(grid.astype(log_weight.dtype), states.position, log_weight, states.log_det)


def field_motion(field: Field, geometry: Geometry, *, log_det: bool = False) -> VectorField:
    """``d(x, log w, ℓ)/dt = (v, g, ∇·v)``; ``g = 0`` at ``alpha = inf``, ``ℓ̇ = 0`` unless asked."""
    rates_at = batched(field)

    def divergence(t: Scalar, x: Float[Array, " d"], params: Params) -> Scalar:
        return jnp.trace(jax.jacfwd(lambda y: field.rates(params, t, y).velocity)(x))

    def motion(t: Scalar, state: FlowState, params: Params) -> FlowState:
        rates, still = rates_at(params, t, state.position), jnp.zeros_like(state.log_weight)
        growth = still if geometry.balanced else jnp.where(geometry.inverse_alpha > 0, rates.growth, 0.0)
        spread = jax.vmap(divergence, (None, 0, None))(t, state.position, params) if log_det else still
        return FlowState(rates.velocity, growth, spread)

    return motion
