"""The UOT-gen objective: inverse-map KL, action, and the laws of a geodesic along the learned flow."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Geometry, Trajectory, time_grid
from wfr_flows.geodesics.density import LogDensity, carried_log_density, gauge_flow, log_normaliser
from wfr_flows.measures import Particles
from wfr_flows.numerics import simpson_weights
from wfr_flows.potentials import Jet, Potential
from wfr_flows.typing import ArrayLike, Params, Scalar


class Objective(NamedTuple):
    """The value of the objective and its terms, all scalars.

    Attributes:
      total: ``cross_entropy``, and the other terms times their weights.
      cross_entropy: ``J_KL = E_ρ0[-log ρ̃0]``; subtract the entropy of ρ0 for the KL divergence.
      action: ``J``, in units of d²_SWFR.
      velocity: ``R``, zero where ``w·v`` is constant along every path.
      residual: zero where the potential solves the Hamilton-Jacobi equation along every path.
    """

    total: Scalar
    cross_entropy: Scalar
    action: Scalar
    velocity: Scalar
    residual: Scalar


class RunningCosts(NamedTuple):
    """What is integrated along a flow: three terms of the `Objective`."""

    action: Scalar
    velocity: Scalar
    residual: Scalar


def objective(
    potential: Potential,
    geometry: Geometry,
    target_log_density: LogDensity,
    *,
    action_weight: ArrayLike = 0.01,
    velocity_weight: ArrayLike = 0.01,
    residual_weight: ArrayLike = 0.0,
    num_steps: int = 8,
    solver: diffrax.AbstractSolver | None = None,
) -> Callable[[Params, Particles, Particles], Objective]:
    """The objective ``J_KL + γ₁J + γ₂R`` of [WFR] eq. 4.8 as a function of ``(params, source, target)``.

    With ``residual_weight`` also the Hamilton-Jacobi penalty of OT-Flow, in its spherical form.

    ``J_KL = E_ρ0[-log ρ₁(z(1)) - ℓ(1) - (1/alpha)∫(Φ - Φ̂)dt]`` compares ρ̃0, the target carried backward by
    the flow, with the source. (Section 4.4 of the paper prints the reaction term with the wrong sign.) The
    normaliser ``(1/alpha)∫Φ̂`` is the log-mean-exp of ``(1/alpha)∫Φ`` over target particles carried backward.
    Expectations over the source are weighted by its weights.

    Args:
      potential, geometry: the flow; spherical, ``alpha = inf`` is OT-Flow.
      target_log_density: ``x: [d] -> log ρ₁(x)``, up to a constant.
      action_weight: ``γ₁``; the smaller, the harder the terminal constraint. Weights may be traced.
      velocity_weight: ``γ₂``.
      residual_weight: of the Hamilton-Jacobi residual, see `running_costs`.
      num_steps: steps of the fixed grid.
      solver: as in `dynamics.integrate`.

    Returns:
      ``(params, source, target) -> Objective``, of weighted samples of both ends; their
      masses are normalised.

    Raises:
      ValueError: a geometry that is not spherical, or negative weights.
    """
    if not geometry.spherical:
        raise ValueError("geometry is not spherical; the objective compares probability measures.")
    weights = {"action": action_weight, "velocity": velocity_weight, "residual": residual_weight}
    for name, weight in weights.items():
        if isinstance(weight, int | float) and not weight >= 0:
            raise ValueError(f"{name}_weight is {weight}; give a number >= 0.")

    def evaluate(params: Params, source: Particles, target: Particles) -> Objective:
        source = source.normalise()
        forward = gauge_flow(potential, geometry, params, source, time_grid(num_steps), solver=solver)
        log_density = carried_log_density(forward, target_log_density)
        # Without growth the normaliser is 1, and nothing need be carried backward.
        if not geometry.balanced:
            log_density -= log_normaliser(
                potential, geometry, params, target, num_steps=num_steps, solver=solver
            )
        cross_entropy = -jnp.sum(source.weight * log_density)
        costs = running_costs(geometry, forward, path_jets(potential, params, forward))
        total = cross_entropy + sum(weight * getattr(costs, name) for name, weight in weights.items())
        return Objective(total, cross_entropy, *costs)

    return evaluate


def path_jets(potential: Potential, params: Params, trajectory: Trajectory) -> Jet:
    """The jets of a potential all along a trajectory, leaves ``[k, n, ...]``."""
    # Node by node, and again on the way back: the network's inner values at all nodes are too many to keep.
    jets_at = jax.checkpoint(lambda node: jax.vmap(potential.jet, (None, None, 0))(params, *node))
    return jax.lax.map(jets_at, (trajectory.time, trajectory.position))


def running_costs(geometry: Geometry, trajectory: Trajectory, jets: Jet) -> RunningCosts:
    """Action, velocity law and Hamilton-Jacobi residual of a forward trajectory, by Simpson's rule.

    ``J = ∫ Σ w(½|∇Φ|² + (Φ-Φ̄)²/(2alpha)) dt`` with weights of sum 1 and
    ``R = ∫ E_w0[ r |r∇Φ(z, t) - ∇Φ(x, 0)|² ] dt`` with ``r = w(t)/w(0)``: [WFR] eqs. 4.8 and 4.7. For weights
    equal at the start this is the paper's R; it does not depend on how the measure is represented. The
    residual is ``∫ E_w |∂ₜΦ - ½|∇Φ|² - (Φ-Φ̄)²/(2alpha)| dt``, OT-Flow's at ``alpha = inf``. Alone of the
    three it sees what function of time a potential carries: where it vanishes, ``dΦ̄/dt = -d²_SWFR``.

    Args:
      geometry: spherical.
      trajectory: of weighted particles, at ``k`` times.
      jets: of the potential, from `path_jets`.
    """
    log_weight = jax.nn.log_softmax(trajectory.log_weight, axis=-1)
    weight = jnp.exp(log_weight)
    mean = jnp.sum(weight * jets.value, axis=1, keepdims=True)
    growth = geometry.inverse_alpha.astype(mean.dtype) * (mean - jets.value)
    density = geometry.energy(-jets.gradient, growth)
    # A particle of weight zero keeps it; its ratio is set to 1 rather than 0/0.
    ratio = jnp.exp(jnp.where(log_weight[0] > -jnp.inf, log_weight - log_weight[0], 0.0))
    momentum_change = jnp.sum((ratio[..., None] * jets.gradient - jets.gradient[0]) ** 2, axis=-1)
    residual = jnp.abs(jets.time_derivative - density)
    quadrature = simpson_weights(trajectory.time)
    return RunningCosts(
        *(
            jnp.vdot(quadrature, jnp.sum(weight * rate, axis=1))
            for rate in (density, momentum_change, residual)
        )
    )
