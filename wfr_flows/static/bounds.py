"""Both sides of a certificate: what potentials prove from below, and what a plan costs from above."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from wfr_flows.measures import Particles
from wfr_flows.numerics import in_blocks, inverse_alpha, saturate, squared_distance, transport_cost
from wfr_flows.static.diracs import Diracs, coupling_cost
from wfr_flows.static.plans import SparsePlan, ratio
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Scalar

# Rows and columns that get less of their weight than this are as good as missed.
_LEAST_SHARE = 1e-12
# A pair that costs this many times the penalty saves the share e^-30 of the mass at most.
_DEAREST = 60.0
# Errors of a bound in units in the last place of its terms: squared distances, cost, potential, weight, sum.
_ROUNDING = 8.0
# What a plan with prescribed marginals may miss of them, as a share of the mass.
_MISSED = 1e-4


class Penalised(NamedTuple):
    """Which problem: ``min ⟨c, γ⟩ + ρ KL(γ₁|μ) + ρ KL(γ₂|ν)``.

    Attributes:
      curvature: ``c`` is `numerics.transport_cost` at this inverse length scale; 0 is ``½|x-y|²``.
      inverse_penalty: ``1/ρ``; 0 prescribes the marginals.
      unsquared: whether ``c`` is ``|x-y|`` instead; no array.
      growth: cost of the difference of masses, which no plan can save; added to both bounds.
    """

    curvature: Scalar
    inverse_penalty: Scalar
    unsquared: bool = False
    growth: Any = 0.0

    def cost(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> tuple[Array, Bool[Array, "n m"]]:
        """``(c, reachable)`` between all pairs."""
        return self.cost_of(squared_distance(x, y))

    def cost_of(self, squared: Array) -> tuple[Array, Bool[Array, "*p"]]:
        """``(c, reachable)`` at squared distances."""
        if not self.unsquared:
            return transport_cost(squared, self.curvature)
        apart = squared > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0), jnp.ones_like(apart)

    def astype(self, dtype: DTypeLike) -> "Penalised":
        """The same problem in another precision."""
        return self._replace(
            curvature=self.curvature.astype(dtype), inverse_penalty=self.inverse_penalty.astype(dtype)
        )

    def worthwhile(self, cost: Array) -> Bool[Array, "*p"]:
        """Pairs that a plan may use; the others would only stretch its range beyond what floats resolve."""
        return cost * self.inverse_penalty < _DEAREST

    def capped(self, potential: Array) -> Array:
        """At most half of what the dearest worthwhile pair costs, which proves as much but for e^-30.

        Pairs that are not worthwhile then ask nothing of either side. ``+inf`` stays.
        """
        k = self.inverse_penalty
        most = jnp.where(k > 0, 0.5 * _DEAREST / jnp.where(k > 0, k, 1.0), jnp.inf)
        return jnp.where(jnp.isposinf(potential), potential, jnp.minimum(potential, most))


class DualPotentials(NamedTuple):
    """Dual potentials in energy units (``2 alpha`` times those of the unit cone), one per particle.

    ``+inf`` marks a particle without partner within reach.
    """

    source: Float[Array, " n"]
    target: Float[Array, " m"]


def dual_bound(
    potential: Float[Array, " n"], source: Particles, target: Particles, alpha: ArrayLike
) -> Scalar:
    """What any potential on the source proves: a lower bound on ``d²_WFR(source, target)``.

    The potential is completed by c-transforms, ``g(y) = min_x c(x,y) - f(x)`` and back, and shifted along
    constants to the best ``∫2alpha(1 - exp(-f/2alpha))dμ + ∫2alpha(1 - exp(-g/2alpha))dν`` [LMS].

    Args:
      potential: ``[n]``, energy units, for instance of another solver.
      source, target: the measures.
      alpha: length scale ``> 0``; ``inf`` for equal masses.
    """
    problem = log_entropy(jnp.asarray(alpha, source.position.dtype))
    potentials = c_transform(potential, source, target, problem)
    return dual_value(potentials, source.weight, target.weight, problem.inverse_penalty)


def plan_cost(plan: Float[Array, "n m"], source: Particles, target: Particles, alpha: ArrayLike) -> Scalar:
    """What any plan proves: an upper bound on ``d²_WFR(source, target)``, the cost of its semi-coupling.

    ``γ⁰ = γ dμ/dγ₁`` travels into ``γ¹ = γ dν/dγ₂`` as Diracs do (`pair_cost`), and what the plan leaves
    out dies or is born [LMS]. At ``alpha = inf`` a plan with other marginals than the measures costs ``inf``.

    Args:
      plan: ``[n, m]``, non-negative, for instance of another solver.
      source, target: the measures.
      alpha: length scale ``> 0``.

    Raises:
      ValueError: a plan of another shape.
    """
    n, m = plan.shape
    sizes = source.log_weight.size, target.log_weight.size
    if (n, m) != sizes:
        raise ValueError(f"plan has shape {plan.shape}; give one entry per pair, {sizes}.")
    row, column = jnp.repeat(jnp.arange(n), m), jnp.tile(jnp.arange(m), n)
    cost = coupling_cost(couple(SparsePlan(row, column, plan.ravel()), source, target, alpha), alpha)
    missed = jnp.sum(jnp.abs(plan.sum(axis=1) - source.weight))
    missed += jnp.sum(jnp.abs(plan.sum(axis=0) - target.weight))
    return jnp.where(jnp.isinf(alpha) & (missed > _MISSED * source.mass), jnp.inf, cost)


def log_entropy(alpha: Scalar) -> Penalised:
    """The problem whose value is ``d²_WFR``: cone cost and ``ρ = 2alpha``."""
    k = inverse_alpha(alpha).astype(alpha.dtype)
    return Penalised(k, 0.5 * k)


def quadratic(alpha: Scalar) -> Penalised:
    """Gaussian-Hellinger: cost ``½|x-y|²`` and ``ρ = 2alpha``."""
    return log_entropy(alpha)._replace(curvature=jnp.zeros_like(alpha))


def euclidean(alpha: Scalar) -> Penalised:
    """Cost ``|x-y|`` between prescribed marginals: ``W₁``. ``alpha`` is ``inf``."""
    return Penalised(jnp.zeros_like(alpha), jnp.zeros_like(alpha), unsquared=True)


def c_transform(potential: Array, source: Particles, target: Particles, problem: Penalised) -> DualPotentials:
    """Feasible potentials, ``f(x) + g(y) <= c(x, y)``, above the given one, the best along constants."""
    completed = half_transform(potential, source, target.position, problem)
    potential = half_transform(completed, target, source.position, problem)
    potentials = DualPotentials(potential, completed)
    return shift(potentials, source.weight, target.weight, problem.inverse_penalty)


def tighten(
    potential: Float[Array, " n"],
    cost: Array,
    from_source: Bool[Array, "n m"],
    from_target: Bool[Array, "n m"],
    problem: Penalised,
) -> DualPotentials:
    """c-transforms of a potential where the costs of all pairs are at hand, over pairs of one mask each."""
    start = problem.capped(potential)[:, None]
    completed = problem.capped(jnp.min(jnp.where(from_source, cost - start, jnp.inf), axis=0))
    potential = jnp.min(jnp.where(from_target, cost - completed, jnp.inf), axis=1)
    return DualPotentials(problem.capped(potential), completed)


def half_transform(
    potential: Float[Array, " n"], measure: Particles, points: Float[Array, "m d"], problem: Penalised
) -> Float[Array, " m"]:
    """``g(y) = min_x c(x, y) - f(x)`` over particles with weight; ``+inf`` at a point that none can reach.

    Both sides capped, see `Penalised.capped`.

    In blocks of points: memory is linear in ``n + m``.
    """
    start = problem.capped(potential)

    def block(some: Float[Array, "b d"]) -> Float[Array, " b"]:
        cost, reachable = problem.cost(some, measure.position)
        present = reachable & (measure.log_weight > -jnp.inf)[None]
        return problem.capped(jnp.min(jnp.where(present, cost - start[None], jnp.inf), axis=1))

    return in_blocks(block, points, potential.size)


def shift(
    potentials: DualPotentials, source_weight: Array, target_weight: Array, k: Scalar
) -> DualPotentials:
    """The best ``(f + l, g - l)``: ``l = ½ρ log(∫e^{-f/ρ}dμ / ∫e^{-g/ρ}dν)``, 0 at ``k = 1/ρ = 0``."""

    # What rounding takes from the level, ρ times the precision, the bound feels squared over ρ.
    widest = 0.9 * jnp.log(jnp.finfo(k.dtype).max)
    source, target = (
        jnp.dot(weight, jnp.exp(jnp.clip(-k * potential, -widest, widest)), precision="highest")
        for weight, potential in zip((source_weight, target_weight), potentials, strict=True)
    )
    offset = 0.5 * jnp.log(source / target) / jnp.where(k > 0, k, 1.0)
    offset = jnp.where((k > 0) & jnp.isfinite(offset), offset, 0.0)
    return DualPotentials(potentials.source + offset, potentials.target - offset)


def dual_value(potentials: DualPotentials, source_weight: Array, target_weight: Array, k: Scalar) -> Scalar:
    """``ρ∫(1 - e^{-f/ρ})dμ + ρ∫(1 - e^{-g/ρ})dν``, ``k = 1/ρ``; potentials ``+inf`` are legal if k > 0."""
    weight, potential = jnp.concatenate([source_weight, target_weight]), jnp.concatenate(potentials)
    return jnp.sum(jnp.where(weight > 0, weight * saturate(potential, k), 0.0))


def dual_rounding(
    potentials: DualPotentials, source_weight: Array, target_weight: Array, k: Scalar
) -> Scalar:
    """Rounding errors of `dual_value`: those of potentials, costs and weights, a few units in the last place.

    Rows of exactly feasible potentials, and marginals of a semi-coupling, are wrong by as much, so that this
    bounds what rounding can take from either side of a certificate.
    """
    weight, potential = jnp.concatenate([source_weight, target_weight]), jnp.concatenate(potentials)
    finite = jnp.isfinite(potential)
    safe = jnp.where(finite, potential, 0.0)
    size = jnp.abs(safe) * jnp.exp(-k * safe) + jnp.abs(saturate(jnp.where(finite, safe, jnp.inf), k))
    counts = (weight > 0) & (finite | (k > 0))
    return _ROUNDING * jnp.finfo(size.dtype).eps * jnp.sum(jnp.where(counts, weight * size, 0.0))


def couple(plan: SparsePlan, source: Particles, target: Particles, alpha: ArrayLike) -> Diracs:
    """The semi-coupling of a plan as travelling Diracs: its pairs, what dies, what is born.

    ``γ⁰ = γ dμ/dγ₁`` leaves, ``γ¹ = γ dν/dγ₂`` arrives, so that the marginals are exactly μ and ν. Rows and
    columns that the plan all but misses are left out of it.
    """
    n, m = source.log_weight.size, target.log_weight.size
    rows, columns = plan.marginals(n, m)
    row, column, mass = plan
    mass = jnp.where(rows > _LEAST_SHARE * source.weight, 1.0, 0.0)[row] * mass
    mass = jnp.where(columns > _LEAST_SHARE * target.weight, 1.0, 0.0)[column] * mass
    rows, columns = plan._replace(mass=mass).marginals(n, m)
    flat = jnp.isinf(alpha)
    leaves = jnp.where(flat, 1.0, ratio(source.weight, rows))
    arrives = jnp.where(flat, 1.0, ratio(target.weight, columns))
    # At alpha = inf the marginals are prescribed, and what is missing is rounding.
    alone = lambda weight, total: jnp.where((total > 0) | flat, 0.0, weight)  # noqa: E731
    dies, born = alone(source.weight, rows), alone(target.weight, columns)
    return Diracs(
        jnp.concatenate([source.position[row], source.position, target.position]),
        jnp.concatenate([target.position[column], source.position, target.position]),
        jnp.concatenate([mass * leaves[row], dies, jnp.zeros_like(born)]),
        jnp.concatenate([mass * arrives[column], jnp.zeros_like(dies), born]),
    )


def energy(plan: SparsePlan, source: Particles, target: Particles, problem: Penalised) -> Scalar:
    """``⟨c, γ⟩ + ρ KL(γ₁|μ) + ρ KL(γ₂|ν)``; a plan at ``1/ρ = 0`` has the right marginals."""
    k = problem.inverse_penalty
    squared = jnp.sum((source.position[plan.row] - target.position[plan.column]) ** 2, axis=-1)
    cost, _ = problem.cost_of(squared)
    rows, columns = plan.marginals(source.log_weight.size, target.log_weight.size)
    weight = jnp.concatenate([source.weight, target.weight])
    misfit = divergence(jnp.concatenate([rows, columns]), weight)
    return jnp.sum(plan.mass * cost) + jnp.where(k > 0, misfit / jnp.where(k > 0, k, 1.0), 0.0)


def divergence(p: Float[Array, " n"], q: Float[Array, " n"]) -> Scalar:
    """``KL(p|q) = Σ p log(p/q) - p + q``, 0 where both are; without cancellation where they are close."""
    x = ratio(p - q, q)
    small = jnp.abs(x) < 1e-2
    near = x**2 * (1 / 2 - x * (1 / 6 - x * (1 / 12 - x * (1 / 20 - x * (1 / 30 - x / 42)))))
    safe = jnp.where(small | (x <= -1), 0.5, x)
    far = jnp.where(x <= -1, 1.0, (1 + safe) * jnp.log1p(safe) - safe)
    return jnp.sum(q * jnp.where(small, near, far))
