"""Travelling Diracs: the closed-form geodesic between two point masses, and what it yields."""

from typing import NamedTuple

import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import REACH, arcsinc_squared, inverse_alpha, sinc_squared, squared_distance
from wfr_flows.typing import Array, ArrayLike, Float, Scalar

_SMALLEST_ANGLE = 1e-6


class Diracs(NamedTuple):
    """Pairs of point masses that travel into each other, batched over a leading axis.

    A list of them is a semi-coupling: mass ``source_mass[k]`` leaves ``source[k]``, mass
    ``target_mass[k]`` arrives at ``target[k]``. Mass that dies in place has ``target = source`` and
    target mass 0; mass that is born has source mass 0.

    Attributes:
      source, target: ``[k, d]``.
      source_mass, target_mass: ``[k]``, non-negative.
    """

    source: Float[Array, "k d"]
    target: Float[Array, "k d"]
    source_mass: Float[Array, " k"]
    target_mass: Float[Array, " k"]

    def normalise(self) -> "Diracs":
        """Both marginals at mass 1: an optimal semi-coupling becomes that of the normalised measures."""
        total = self.source_mass.sum(), self.target_mass.sum()
        return self._replace(source_mass=self.source_mass / total[0], target_mass=self.target_mass / total[1])


class DiracState(NamedTuple):
    """Travelling Diracs at one time.

    Attributes:
      position: ``[k, d]``.
      mass: ``[k]``.
      velocity: ``dx/dt``, ``[k, d]``.
      growth: ``(dm/dt)/m``, ``[k]``.
    """

    position: Float[Array, "k d"]
    mass: Float[Array, " k"]
    velocity: Float[Array, "k d"]
    growth: Float[Array, " k"]


def pair_cost(squared: Array, source_mass: Array, target_mass: Array, alpha: ArrayLike) -> Array:
    """``d²_WFR`` between two Diracs at squared distance ``squared``, elementwise.

    ``d² = 2alpha (m₀ + m₁ - 2√(m₀m₁) cos θ)``, ``θ = min(|x-y|/(2√alpha), π/2)`` [LMS], evaluated as
    ``½|x-y|² sinc²(θ/2) √(m₀m₁) + 2alpha (√m₀ - √m₁)²``, which does not cancel and whose limit at
    ``alpha = inf`` is ``½|x-y|² m₀`` for equal masses and ``inf`` for unequal ones.
    """
    squared = jnp.minimum(squared, jnp.finfo(squared.dtype).max)
    angle = 0.25 * squared * inverse_alpha(alpha).astype(squared.dtype)
    # Beyond reach the pair costs as much as one exactly at reach.
    scale = jnp.where(angle < REACH, 1.0, REACH / jnp.where(angle < REACH, 1.0, angle))
    both = _root(source_mass) * _root(target_mass)
    move = 0.5 * squared * scale * sinc_squared(jnp.minimum(angle, REACH)) * both
    return move + growth_cost(source_mass, target_mass, alpha)


def coupling_cost(diracs: Diracs, alpha: ArrayLike) -> Scalar:
    """``Σ d²_WFR`` of travelling Diracs, each on its own: the cost of a semi-coupling."""
    squared = jnp.sum((diracs.source - diracs.target) ** 2, axis=-1)
    return jnp.sum(pair_cost(squared, diracs.source_mass, diracs.target_mass, alpha))


def growth_cost(source_mass: Array, target_mass: Array, alpha: ArrayLike) -> Array:
    """``2alpha (√m₀ - √m₁)²``, the cost of changing a mass in place (Hellinger)."""
    difference = _root(source_mass) - _root(target_mass)
    flat = jnp.isinf(alpha)
    finite = 2 * jnp.where(flat, 1.0, alpha) * difference**2
    return jnp.where(flat, jnp.where(difference == 0, 0.0, jnp.inf), finite)


def two_diracs(source, source_mass, target, target_mass, alpha: ArrayLike) -> Scalar:
    """``d²_WFR(m₀ δ_x, m₁ δ_y)`` in closed form, for ``x, y: [d]``.

    Args:
      source, target: positions ``[d]``.
      source_mass, target_mass: non-negative.
      alpha: length scale ``> 0``; ``inf`` asks for equal masses.

    >>> two_diracs(jnp.zeros(1), 1.0, jnp.ones(1), 1.0, jnp.inf)
    Array(0.5, dtype=float32)
    """
    squared = jnp.sum((jnp.asarray(source) - jnp.asarray(target)) ** 2)
    before, after = jnp.asarray(source_mass, squared.dtype), jnp.asarray(target_mass, squared.dtype)
    return pair_cost(squared, before, after, alpha)


def dirac_to_measure(
    source: Float[Array, " d"], mass: ArrayLike, target: Particles, alpha: ArrayLike
) -> Scalar:
    """``d²_WFR(a₀ δ_x, ν) = 2alpha (a₀ + |ν| - 2√(a₀I))``, ``I = ∫ cos²(min(|y-x|/(2√alpha), π/2)) dν``.

    For finite ``alpha``; any number of dimensions. A single source feeds every target it can reach.
    """
    squared = squared_distance(source[None], target.position)[0]
    alpha, mass = jnp.asarray(alpha, squared.dtype), jnp.asarray(mass, squared.dtype)
    angle = jnp.minimum(0.25 * squared * inverse_alpha(alpha), REACH)
    # a₀ + |ν| - 2√(a₀I) = (√a₀ - √I)² + Σ w sin², without cancellation.
    missed = jnp.sum(target.weight * angle * sinc_squared(4 * angle))
    overlap = jnp.maximum(target.mass - missed, 0.0)
    return 2 * alpha * ((jnp.sqrt(mass) - jnp.sqrt(overlap)) ** 2 + missed)


def travel(diracs: Diracs, time: ArrayLike, alpha: ArrayLike) -> DiracState:
    """Where travelling Diracs are at WFR time ``t`` in [0, 1], how heavy, and how they move.

    ``m(t) = (1-t)²m₀ + t²m₁ + 2t(1-t)√(m₀m₁) cos θ``; ``x(t) = x₀ + (φ(t)/θ)(x₁-x₀)`` with
    ``φ = atan2(t√m₁ sin θ, (1-t)√m₀ + t√m₁ cos θ)``; ``m|ẋ|`` is constant [LMS]. Pairs must be within
    reach, ``|x₁-x₀| <= π√alpha``.
    """
    offset = diracs.target - diracs.source
    time = jnp.asarray(time, offset.dtype)
    squared_angle = 0.25 * jnp.sum(offset**2, axis=-1) * inverse_alpha(alpha).astype(offset.dtype)
    angle = jnp.sqrt(jnp.maximum(squared_angle, _SMALLEST_ANGLE**2))
    root0, root1 = _root(diracs.source_mass), _root(diracs.target_mass)
    along = (1 - time) * root0 + time * root1 * jnp.cos(angle)
    across = time * root1 * jnp.sin(angle)
    mass = along**2 + across**2
    safe = _positive(mass)
    sinc = jnp.sin(angle) / angle
    overlap = root0 * root1 * jnp.cos(angle)
    slope = -2 * (1 - time) * root0**2 + 2 * time * root1**2 + 2 * (1 - 2 * time) * overlap
    fraction = jnp.arctan2(across, along) / angle
    return DiracState(
        diracs.source + fraction[..., None] * offset,
        mass,
        (root0 * root1 * sinc / safe)[..., None] * offset,
        slope / safe,
    )


def wfr_geodesic(diracs: Diracs, time: ArrayLike, alpha: ArrayLike) -> Particles:
    """The WFR geodesic of an optimal semi-coupling at time ``t``, as weighted particles."""
    state = travel(diracs, time, alpha)
    return Particles(state.position, jnp.log(state.mass))


def spherical_geodesic(diracs: Diracs, time: ArrayLike, alpha: ArrayLike) -> Particles:
    """The spherical geodesic at time ``t``: the plain one at ``s(t)``, normalised to mass 1 [LM].

    ``diracs`` is an optimal semi-coupling; its marginals are normalised here.
    """
    diracs = diracs.normalise()
    return wfr_geodesic(diracs, spherical_time(time, cone_angle(diracs, alpha))[0], alpha).normalise()


def spherical_travel(diracs: Diracs, time: ArrayLike, alpha: ArrayLike, angle: ArrayLike) -> DiracState:
    """`travel` along the spherical geodesic: ``x(s(t))`` and ``m(s(t))/M(s(t))``, rates in its own time.

    ``M(s) = 1 - 4s(1-s) sin²(Θ/2)`` is the mass of the plain geodesic [LM].

    Args:
      diracs: some or all of an optimal semi-coupling of two probability measures (see `Diracs.normalise`).
      time: ``t`` in [0, 1].
      alpha: length scale.
      angle: ``Θ`` of the whole semi-coupling, from `cone_angle`.
    """
    plain, rate = spherical_time(time, angle)
    bend = 4 * jnp.sin(angle / 2) ** 2
    total = 1 - plain * (1 - plain) * bend
    state = travel(diracs, plain, alpha)
    growth = rate * (state.growth + (1 - 2 * plain) * bend / total)
    return DiracState(state.position, state.mass / total, rate * state.velocity, growth)


def cone_angle(diracs: Diracs, alpha: ArrayLike) -> Scalar:
    """``Θ = arccos(1 - d²_WFR/(4alpha))`` in [0, π/2], between the marginals at mass 1."""
    value = coupling_cost(diracs.normalise(), alpha)
    return 2 * jnp.arcsin(_root(jnp.clip(value * inverse_alpha(alpha) / 8, 0.0, 0.5)))


def spherical_from_plain(value: ArrayLike, alpha: ArrayLike) -> Array:
    """``d²_SWFR = 2alpha Θ²``, ``Θ = arccos(1 - d²_WFR/(4alpha))`` between probability measures [LM].

    Evaluated as ``d² (arcsin u / u)²`` with ``u² = d²/(8alpha)``; the identity at ``alpha = inf``.
    """
    value = jnp.asarray(value, jnp.result_type(value, float))
    return value * arcsinc_squared(jnp.clip(value * inverse_alpha(alpha) / 8.0, 0.0, 0.5))


def spherical_time(time: ArrayLike, angle: ArrayLike) -> tuple[Array, Array]:
    """WFR time ``s(t) = sin(tΘ)/(sin(tΘ) + sin((1-t)Θ))`` of a spherical geodesic, and ``s′(t)``.

    ``Θ`` in [0, π/2]; at ``Θ = 0`` (``alpha = inf``) it is ``t`` itself [LM].
    """
    time, angle = jnp.asarray(time), jnp.maximum(angle, _SMALLEST_ANGLE)
    ahead, behind = jnp.sin(time * angle), jnp.sin((1 - time) * angle)
    total = ahead + behind
    return ahead / total, angle * jnp.sin(angle) / total**2


def _positive(value: Array) -> Array:
    return jnp.maximum(value, jnp.finfo(value.dtype).tiny)


def _root(mass: Array) -> Array:
    """Square root with derivative 0, not inf, at 0."""
    return jnp.where(mass > 0, jnp.sqrt(jnp.where(mass > 0, mass, 1.0)), 0.0)
