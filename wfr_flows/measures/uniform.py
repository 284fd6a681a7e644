"""Uniform laws on boxes and balls."""

import math

import jax
import jax.numpy as jnp

from wfr_flows.measures.distributions import Distribution
from wfr_flows.measures.particles import Particles, equally_weighted
from wfr_flows.numerics import lattice
from wfr_flows.typing import Array, ArrayLike, Float, Key, Scalar


def uniform_box(low: Float[Array, " d"], high: Float[Array, " d"]) -> Distribution:
    """The uniform law on ``[low_1, high_1] x ... x [low_d, high_d]``, corners ``[d]``."""
    low, high = jnp.asarray(low), jnp.asarray(high)
    if low.ndim != 1 or low.shape != high.shape:
        raise ValueError(f"low {low.shape} and high {high.shape} do not fit; give both as [d].")
    dim = low.shape[0]

    def place(point: Float[Array, "n d"]) -> Particles:
        return equally_weighted(low[None] + (high - low)[None] * point)

    def log_density(x: Float[Array, " d"]) -> Scalar:
        inside = jnp.all((x >= low) & (x <= high))
        return jnp.where(inside, -jnp.sum(jnp.log(high - low)), -jnp.inf)

    return Distribution(
        dim,
        lambda key, n: place(jax.random.uniform(key, (n, dim), low.dtype)),
        log_density,
        lambda key, n: place(lattice(key, n, dim).astype(low.dtype)),
    )


def uniform_ball(centre: Float[Array, " d"], radius: ArrayLike) -> Distribution:
    """The uniform law on the ball of a radius about ``centre: [d]``."""
    centre = jnp.asarray(centre)
    if centre.ndim != 1:
        raise ValueError(f"centre has shape {centre.shape}; give [d].")
    dim = centre.shape[0]
    radius = jnp.asarray(radius, centre.dtype)
    log_volume = 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim + 1) + dim * jnp.log(radius)

    def place(direction: Float[Array, "n d"], level: Float[Array, "n 1"]) -> Particles:
        unit = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
        return equally_weighted(centre[None] + radius * level ** (1 / dim) * unit)

    def sample(key: Key, n: int) -> Particles:
        direction_key, level_key = jax.random.split(key)
        level = jax.random.uniform(level_key, (n, 1), centre.dtype)
        return place(jax.random.normal(direction_key, (n, dim), centre.dtype), level)

    def spread(key: Key, n: int) -> Particles:
        point = lattice(key, n, dim + 1).astype(centre.dtype)
        return place(jax.scipy.special.ndtri(point[:, 1:]), point[:, :1])

    def log_density(x: Float[Array, " d"]) -> Scalar:
        inside = jnp.sum((x - centre) ** 2) <= radius**2
        return jnp.where(inside, -log_volume, -jnp.inf)

    return Distribution(dim, sample, log_density, spread)
