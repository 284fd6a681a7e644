"""Densities of a learned flow: the target carried backward to the source."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Geometry, Trajectory, flow, time_grid
from wfr_flows.measures import Particles
from wfr_flows.potentials import Potential
from wfr_flows.typing import Array, ArrayLike, Float, Params, Scalar

LogDensity = Callable[[Float[Array, " d"]], Scalar]


def log_density(
    potential: Potential,
    geometry: Geometry,
    params: Params,
    x: Float[Array, "n d"],
    target_log_density: LogDensity,
    *,
    log_normaliser: ArrayLike,
    num_steps: int = 16,
    solver: diffrax.AbstractSolver | None = None,
) -> Float[Array, " n"]:
    """Log-density of ρ̃0, the target carried backward by the learned flow, at given points.

    ``log ρ̃0(x) = log ρ₁(z(1)) + ℓ(1) + (1/alpha)∫₀¹Φ dt - log Z`` along the path of ``x`` ([WFR] eq. 4.4).

    Args:
      potential, geometry, params: the flow.
      x: ``[n, d]`` points at time 0.
      target_log_density: ``x: [d] -> log ρ₁(x)``.
      log_normaliser: ``log Z`` from `log_normaliser`; 0 at ``alpha = inf``.
      num_steps, solver: as in `dynamics.integrate`.

    Returns:
      ``[n]`` log-densities, normalised if ``target_log_density`` is.
    """
    start = Particles(x, jnp.zeros(x.shape[0], x.dtype))
    forward = gauge_flow(potential, geometry, params, start, time_grid(num_steps), solver=solver)
    return carried_log_density(forward, target_log_density) - log_normaliser


def log_normaliser(
    potential: Potential,
    geometry: Geometry,
    params: Params,
    target: Particles,
    *,
    num_steps: int = 16,
    solver: diffrax.AbstractSolver | None = None,
) -> Scalar:
    """``log Z = (1/alpha)∫Φ̂ dt = log E_ρ1[exp((1/alpha)∫Φ)]`` over reverse paths of target samples.

    Args:
      potential, geometry, params: of the flow; 0 at ``alpha = inf``.
      target: weighted samples of ``ρ1``, of any mass.
      num_steps, solver: of the reverse flow.
    """
    grid = time_grid(num_steps, reverse=True)
    reverse = gauge_flow(potential, geometry, params, target.normalise(), grid, solver=solver, log_det=False)
    return jax.nn.logsumexp(reverse.log_weight[-1])


def gauge_flow(potential, geometry, params, measure, grid, **options) -> Trajectory:
    """`dynamics.flow`, with its arguments, in the gauge ``Φ̄ = 0``: log-weights change by ``-(1/alpha)∫Φ``."""
    return flow(potential, geometry._replace(spherical=False), params, measure, grid, **options)


def carried_log_density(forward: Trajectory, target_log_density: LogDensity) -> Float[Array, " n"]:
    """``log ρ₁(z(1)) + ℓ(1) + (1/alpha)∫Φ dt`` of a forward `gauge_flow`: ``log ρ̃0`` up to its normaliser."""
    growth = forward.log_weight[-1] - forward.log_weight[0]
    # Weights of zero stay zero, so their growth reads nan; they do not count.
    growth = jnp.where(jnp.isfinite(forward.log_weight[0]), growth, 0.0)
    return jax.vmap(target_log_density)(forward.position[-1]) + forward.log_det[-1] - growth
