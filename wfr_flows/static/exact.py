"""Exact values without iteration: Wasserstein on the line, Gaussian-Hellinger between Gaussians."""

import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import inverse_alpha, known_infinite
from wfr_flows.static.bounds import DualPotentials, Penalised
from wfr_flows.static.plans import SparsePlan, monotone
from wfr_flows.static.result import Assess, StaticResult
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Scalar


def on_the_line(
    source: Particles,
    target: Particles,
    problem: Penalised,
    assess: Assess,
    tolerance: float,
    max_iterations: int,
    known: Bool[Array, ""],
) -> StaticResult:
    """A convex cost of ``|x-y|`` on the line by sorting, ``O((n + m) log(n + m))``: no iterations.

    The plan joins quantiles. Each of its pairs differs from the one before by one step in the source or in
    the target, and the potential of the particle stepped to takes up the change of cost.
    """
    del tolerance, max_iterations, known
    sources, targets = (jnp.argsort(m.position[:, 0]) for m in (source, target))
    x, y = source.position[sources, 0], target.position[targets, 0]
    row, column, mass = monotone(source.weight[sources], target.weight[targets])
    cost, _ = problem.cost_of((x[row] - y[column]) ** 2)
    change = jnp.diff(cost, prepend=0.0)
    in_source = jnp.diff(row, prepend=0) > 0
    gained_source = jnp.cumsum(jnp.where(in_source, change, 0.0))
    gained_target = jnp.cumsum(jnp.where(in_source, 0.0, change))
    potentials = DualPotentials(
        jnp.zeros_like(x).at[sources[row]].set(gained_source),
        jnp.zeros_like(y).at[targets[column]].set(gained_target),
    )
    plan = SparsePlan(sources[row], targets[column], mass)
    return assess(source, target, potentials, plan, jnp.zeros((), jnp.int32))


def gaussian_hellinger_gaussians(
    source_mean: Float[Array, " d"],
    source_covariance: Float[Array, "d d"],
    source_mass: ArrayLike,
    target_mean: Float[Array, " d"],
    target_covariance: Float[Array, "d d"],
    target_mass: ArrayLike,
    alpha: ArrayLike,
) -> Scalar:
    """`gaussian_hellinger` between two Gaussians of any mass, in closed form.

    With ``ρ = 2alpha`` the plan has Gaussian marginals, mass ``m`` and the linear map ``T`` that solves
    ``T(I + ρB⁻¹)T = I + ρA⁻¹``; the value is ``ρ(|μ| + |ν| - 2m)`` (after Janati, Muzellec, Peyré and Cuturi,
    2020, without entropic smoothing).

    Args:
      source_mean, target_mean: ``[d]``.
      source_covariance, target_covariance: ``[d, d]``, positive definite.
      source_mass, target_mass: positive.
      alpha: length scale, positive and finite.

    Raises:
      ValueError: a concrete ``alpha`` that is not.
    """
    inverse_alpha(alpha)
    if known_infinite(alpha):
        raise ValueError("alpha is inf; give a finite number.")
    penalty, identity = 2 * jnp.asarray(alpha), jnp.eye(source_mean.shape[0])
    first = identity + penalty * jnp.linalg.inv(source_covariance)
    second = identity + penalty * jnp.linalg.inv(target_covariance)
    root = _square_root(second)
    inverse_root = jnp.linalg.inv(root)
    linear = inverse_root @ _square_root(root @ first @ root) @ inverse_root
    source_plan = penalty * jnp.linalg.inv(first - linear)
    target_plan = penalty * jnp.linalg.inv(second - jnp.linalg.inv(linear))
    difference = target_mean - source_mean
    step = jnp.linalg.solve(identity + (source_covariance + target_covariance) / penalty, difference)
    moved_source = source_covariance @ step / penalty
    moved_target = target_covariance @ step / penalty
    stretch = identity - linear
    transport = 0.5 * (step @ step + jnp.trace(stretch @ source_plan @ stretch.T))
    entropy = _relative_entropy(moved_source, source_plan, source_covariance)
    entropy += _relative_entropy(moved_target, target_plan, target_covariance)
    root_mass = jnp.sqrt(jnp.asarray(source_mass) * target_mass)
    plan_mass = root_mass * jnp.exp(-0.5 * (transport / penalty + entropy))
    return penalty * (source_mass + target_mass - 2 * plan_mass)


def _relative_entropy(shift: Array, covariance: Array, reference: Array) -> Scalar:
    """``KL(N(shift, covariance) | N(0, reference))``."""
    ratio = jnp.linalg.solve(reference, covariance)
    distance = shift @ jnp.linalg.solve(reference, shift)
    return 0.5 * (jnp.trace(ratio) - shift.size + distance - jnp.linalg.slogdet(ratio)[1])


def _square_root(matrix: Array) -> Array:
    """The symmetric root of a symmetric positive matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(values)[None]) @ vectors.T
