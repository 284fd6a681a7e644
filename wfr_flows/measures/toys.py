"""The toy sets in the plane of FFJORD (Grathwohl et al., 2019) and OT-Flow, at their scale."""

import jax
import jax.numpy as jnp

from wfr_flows.measures.distributions import Distribution, mixture
from wfr_flows.measures.particles import Particles, equally_weighted
from wfr_flows.typing import Array, Float, Key, Scalar


def eight_gaussians() -> Distribution:
    """Eight Gaussians of standard deviation 0.5/√2 on the circle of radius 4/√2 (OT-Flow's toy set)."""
    angle = 2 * jnp.pi * jnp.arange(8.0) / 8
    mean = 4 / jnp.sqrt(2.0) * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return mixture(jnp.ones(8), mean, jnp.tile(0.125 * jnp.eye(2), (8, 1, 1)))


def moons(*, noise: float = 0.1) -> Distribution:
    """Two interleaved half circles of radius 2 with Gaussian noise of twice ``noise`` (OT-Flow's toy set).

    ``spread`` draws equally many on either, as scikit-learn does, in random order.
    """

    def draw(key: Key, upper: Array) -> Particles:
        angle_key, noise_key = jax.random.split(key)
        angle = jnp.pi * jax.random.uniform(angle_key, upper.shape)
        x = jnp.where(upper, jnp.cos(angle), 1 - jnp.cos(angle))
        y = jnp.where(upper, jnp.sin(angle), 0.5 - jnp.sin(angle))
        place = jnp.stack([x, y], axis=1) + noise * jax.random.normal(noise_key, (upper.size, 2))
        return equally_weighted(2 * place + jnp.array([[-1.0, -0.2]]))

    def sample(key: Key, n: int) -> Particles:
        side_key, key = jax.random.split(key)
        return draw(key, jax.random.bernoulli(side_key, shape=(n,)))

    def spread(key: Key, n: int) -> Particles:
        side_key, key = jax.random.split(key)
        return draw(key, jax.random.permutation(side_key, jnp.arange(n) % 2 == 0))

    return Distribution(2, sample, None, spread)


def circles() -> Distribution:
    """Circles of radius 3 and 1.5 with Gaussian noise 0.24.

    The density is ``½ Σ_R exp(-(|x|² + R²)/2σ²) I₀(|x|R/σ²) / 2πσ²`` over both radii ``R``.
    """
    radii, noise = jnp.array([3.0, 1.5]), 0.24

    def sample(key: Key, n: int) -> Particles:
        angle_key, side_key, noise_key = jax.random.split(key, 3)
        angle = 2 * jnp.pi * jax.random.uniform(angle_key, (n,))
        radius = radii[jax.random.bernoulli(side_key, shape=(n,)).astype(jnp.int32)]
        on_circle = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        return equally_weighted(on_circle + noise * jax.random.normal(noise_key, (n, 2)))

    def log_density(x: Float[Array, " d"]) -> Scalar:
        squared = jnp.sum(x**2)
        distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
        log_bessel = jnp.log(jax.scipy.special.i0e(distance * radii / noise**2))
        exponent = log_bessel - 0.5 * ((distance - radii) / noise) ** 2
        return jax.nn.logsumexp(exponent) - jnp.log(4 * jnp.pi * noise**2)

    return Distribution(2, sample, log_density, sample)


def checkerboard() -> Distribution:
    """Uniform on the eight dark squares, of side 2, of a 4 x 4 board on ``[-4, 4]²``."""

    def sample(key: Key, n: int) -> Particles:
        column_key, row_key, place_key = jax.random.split(key, 3)
        column = jax.random.randint(column_key, (n,), 0, 4)
        row = 2 * jax.random.randint(row_key, (n,), 0, 2) + column % 2
        corner = jnp.stack([column, row], axis=1) - 2
        inside = jax.random.uniform(place_key, (n, 2))
        return equally_weighted(2 * (corner.astype(inside.dtype) + inside))

    def log_density(x: Float[Array, " d"]) -> Scalar:
        square = jnp.floor(x / 2)
        on_board = jnp.all((square >= -2) & (square < 2))
        dark = jnp.sum(square) % 2 == 0
        return jnp.where(on_board & dark, -jnp.log(jnp.asarray(32.0, x.dtype)), -jnp.inf)

    return Distribution(2, sample, log_density, sample)


def pinwheel() -> Distribution:
    """Five arms, wound by ``¼ exp(r)`` at radius ``r``, with noise 0.6 along and 0.2 across an arm.

    ``spread`` draws equally many on every arm, as the usual generator of the set does, in random order.
    """

    def draw(key: Key, arm: Array) -> Particles:
        along, across = jnp.array([[0.3], [0.1]]) * jax.random.normal(key, (2, arm.size))
        along = 1 + along
        angle = 2 * jnp.pi * arm.astype(along.dtype) / 5 + 0.25 * jnp.exp(along)
        x = along * jnp.cos(angle) + across * jnp.sin(angle)
        y = across * jnp.cos(angle) - along * jnp.sin(angle)
        return equally_weighted(2 * jnp.stack([x, y], axis=1))

    def sample(key: Key, n: int) -> Particles:
        arm_key, key = jax.random.split(key)
        return draw(key, jax.random.randint(arm_key, (n,), 0, 5))

    def spread(key: Key, n: int) -> Particles:
        arm_key, key = jax.random.split(key)
        return draw(key, jax.random.permutation(arm_key, jnp.arange(n) % 5))

    return Distribution(2, sample, None, spread)


def swissroll() -> Distribution:
    """The spiral ``t (cos t, sin t)/5``, ``t`` uniform in ``[1.5π, 4.5π]``, with Gaussian noise 0.2."""

    def sample(key: Key, n: int) -> Particles:
        angle_key, noise_key = jax.random.split(key)
        angle = jnp.pi * (1.5 + 3 * jax.random.uniform(angle_key, (n, 1)))
        spiral = angle * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)
        return equally_weighted((spiral + jax.random.normal(noise_key, (n, 2))) / 5)

    return Distribution(2, sample, None, sample)


def two_spirals() -> Distribution:
    """The spiral ``t (-cos t, sin t)/3``, ``t²`` uniform in ``[0, 9π²]``, and its image under ``x -> -x``.

    Uniform noise in ``[0, 1/6]²`` widens the first spiral before it is copied, Gaussian noise 0.1 both.
    """

    def sample(key: Key, n: int) -> Particles:
        angle_key, width_key, side_key, noise_key = jax.random.split(key, 4)
        angle = 3 * jnp.pi * jnp.sqrt(jax.random.uniform(angle_key, (n, 1)))
        spiral = angle * jnp.concatenate([-jnp.cos(angle), jnp.sin(angle)], axis=1)
        spiral = (spiral + 0.5 * jax.random.uniform(width_key, (n, 2))) / 3
        side = jax.random.rademacher(side_key, (n, 1), spiral.dtype)
        return equally_weighted(side * spiral + 0.1 * jax.random.normal(noise_key, (n, 2)))

    return Distribution(2, sample, None, sample)
