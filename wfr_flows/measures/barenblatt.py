"""The self-similar solution of the porous medium equation, with mass one."""

import math

import jax
import jax.numpy as jnp

from wfr_flows.measures.distributions import Distribution
from wfr_flows.measures.particles import Particles, equally_weighted
from wfr_flows.numerics import lattice
from wfr_flows.typing import Array, Float, Key, Scalar


def barenblatt(dim: int, m: float, time: float) -> Distribution:
    """Barenblatt's solution of ``∂ₜρ = Δρ^m`` that begins as a Dirac mass at 0, at a time after that.

    ``ρ(t, x) = t^-a (C - k |x|² t^(-2a/d))₊^(1/(m-1))`` with ``a = d/(d (m-1) + 2)`` and
    ``k = (m-1) a/(2 m d)`` ([VWGF] section 4.3), where ``C`` makes the mass 1: ``(3/64)^(1/3)`` at ``d = 1``,
    ``m = 2``. It lives on the ball of radius ``R = t^(a/d) √(C/k)``, and ``|x|²/R²`` follows the law
    Beta(d/2, m/(m-1)), which is how it is sampled; so ``E|x|² = R² d/(d + 2m/(m-1))``.

    Args:
      dim: ``d >= 1``.
      m: exponent above 1.
      time: above 0.

    Raises:
      ValueError: a number out of its range.
    """
    if dim < 1 or not m > 1 or not time > 0:
        raise ValueError(f"dim is {dim}, m {m}, time {time}; give dim >= 1, m > 1 and time > 0.")
    radius = barenblatt_radius(dim, m, time)
    power = 1 / (m - 1)
    # ∫ (1 - |x|²/R²)₊^p dx = R^d π^(d/2) Γ(p+1)/Γ(p+1+d/2)
    log_peak = (
        math.lgamma(power + 1 + dim / 2)
        - math.lgamma(power + 1)
        - 0.5 * dim * math.log(math.pi)
        - dim * math.log(radius)
    )

    def log_density(x: Float[Array, " d"]) -> Scalar:
        inside = 1 - jnp.sum(x**2) / radius**2
        positive = inside > 0
        return jnp.where(positive, log_peak + power * jnp.log(jnp.where(positive, inside, 1.0)), -jnp.inf)

    def place(direction: Float[Array, "n d"], distance: Float[Array, "n 1"]) -> Particles:
        unit = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
        return equally_weighted(radius * distance * unit)

    def sample(key: Key, n: int) -> Particles:
        direction_key, distance_key = jax.random.split(key)
        dtype = jnp.result_type(float)
        squared = jax.random.beta(distance_key, dim / 2, power + 1, (n, 1), dtype)
        return place(jax.random.normal(direction_key, (n, dim), dtype), jnp.sqrt(squared))

    def spread(key: Key, n: int) -> Particles:
        point = lattice(key, n, dim + 1).astype(jnp.result_type(float))
        # The distance by its tabulated distribution function, finer near both ends than the lattice is.
        knot = jnp.sin(0.5 * jnp.pi * jnp.linspace(0.0, 1.0, 4001))
        distance = jnp.interp(point[:, :1], jax.scipy.special.betainc(dim / 2, power + 1, knot**2), knot)
        return place(jax.scipy.special.ndtri(point[:, 1:]), distance)

    return Distribution(dim, sample, log_density, spread)


def barenblatt_radius(dim: int, m: float, time: float) -> float:
    """Radius of the ball where `barenblatt` lives."""
    power = 1 / (m - 1)
    a = dim / (dim * (m - 1) + 2)
    k = (m - 1) * a / (2 * m * dim)
    # Mass C^(p + d/2) k^(-d/2) π^(d/2) Γ(p+1)/Γ(p+1+d/2) = 1
    log_c = (
        0.5 * dim * math.log(k / math.pi) + math.lgamma(power + 1 + dim / 2) - math.lgamma(power + 1)
    ) / (power + dim / 2)
    return time ** (a / dim) * math.sqrt(math.exp(log_c) / k)
