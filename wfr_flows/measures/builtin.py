"""Named sources, so that a first run needs no file."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wfr_flows.measures.distributions import Distribution, mixture
from wfr_flows.measures.particles import Particles
from wfr_flows.typing import Key


def gaussian_mixture_1d() -> Distribution:
    """``⅓ N(-3, 1) + ⅔ N(3, 1)``, the one-dimensional example of [WFR] section 6.1."""
    return mixture(jnp.array([1.0, 2.0]) / 3, jnp.array([[-3.0], [3.0]]), jnp.ones((2, 1, 1)))


def eight_gaussians() -> Distribution:
    """Eight Gaussians of standard deviation 0.5/√2 on the circle of radius 4/√2 (OT-Flow's toy set)."""
    angle = 2 * jnp.pi * jnp.arange(8) / 8
    mean = 4 / jnp.sqrt(2.0) * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return mixture(jnp.ones(8), mean, jnp.tile(0.125 * jnp.eye(2), (8, 1, 1)))


def moons() -> Distribution:
    """Two interleaved half circles of radius 2 with Gaussian noise 0.2 (OT-Flow's toy set)."""

    def sample(key: Key, n: int) -> Particles:
        angle_key, side_key, noise_key = jax.random.split(key, 3)
        angle = jnp.pi * jax.random.uniform(angle_key, (n,))
        upper = jax.random.bernoulli(side_key, shape=(n,))
        x = jnp.where(upper, jnp.cos(angle), 1 - jnp.cos(angle))
        y = jnp.where(upper, jnp.sin(angle), 0.5 - jnp.sin(angle))
        noise = 0.1 * jax.random.normal(noise_key, (n, 2))
        position = 2 * (jnp.stack([x, y], axis=1) + noise) + jnp.array([-1.0, -0.2])
        return Particles(position, jnp.full((n,), -jnp.log(n), position.dtype))

    return Distribution(2, sample, None)


BUILTIN: dict[str, Callable[[], Distribution]] = {
    "mixture": gaussian_mixture_1d,
    "eight-gaussians": eight_gaussians,
    "moons": moons,
}
"""Constructors by the name the command line uses."""
