"""Weighted point clouds, the one thing every method reads and writes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.numerics import (
    concrete,
    inverse_distribution,
    log_normalised,
    log_of_weight,
    running_total,
    weight_of_log,
)
from wfr_flows.typing import Array, Float, Key, Scalar


class Particles(NamedTuple):
    """A weighted point cloud ``Σ exp(log_weight_i) δ(position_i)``.

    Attributes:
      position: ``[n, d]``.
      log_weight: ``[n]``; ``-inf`` is a particle of weight zero.

    The mass is ``Σ exp(log_weight)``; a probability measure has mass 1 (see `normalise`).
    """

    position: Float[Array, "n d"]
    log_weight: Float[Array, " n"]

    @property
    def weight(self) -> Float[Array, " n"]:
        """``exp(log_weight)``, with derivatives in weights of 0 that `particles` was given."""
        return weight_of_log(self.log_weight)

    @property
    def mass(self) -> Scalar:
        """Total mass ``Σ w``."""
        return jnp.exp(jax.nn.logsumexp(self.log_weight, axis=-1))

    @property
    def effective_sample_size(self) -> Scalar:
        """Kish's ``(Σ w)² / Σ w²``, between 1 and n."""
        total = jax.nn.logsumexp(self.log_weight, axis=-1)
        return jnp.exp(2 * total - jax.nn.logsumexp(2 * self.log_weight, axis=-1))

    def normalise(self) -> "Particles":
        """The probability measure proportional to this one."""
        return Particles(self.position, log_normalised(self.log_weight))


def particles(position, weight=None, *, name: str = "position") -> Particles:
    """Build `Particles` from arrays, refusing what is not a measure; of traced arrays, wrong shapes only.

    Args:
      position: ``[n, d]`` array, or ``[n]`` for points on the line.
      weight: ``[n]`` non-negative, at least one positive; unnormalised is fine. Default: ``1/n`` each.
      name: what to call ``position`` in an error message.

    Returns:
      `Particles` in jax's default float type.

    Raises:
      ValueError: empty or wrongly shaped arrays, NaN or infinite entries, negative or all-zero weights.

    >>> particles([[0.0], [1.0]], [1.0, 3.0]).mass
    Array(4., dtype=float32)
    """
    position = np.asarray(position) if concrete(position) else jnp.asarray(position)
    if position.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {position.dtype}; give real numbers.")
    position = position[:, None] if position.ndim == 1 else position
    if position.ndim != 2 or position.shape[1] == 0:
        raise ValueError(f"{name} has shape {position.shape}; give [n, d] with d >= 1.")
    num = position.shape[0]
    if num == 0:
        raise ValueError(f"{name} is empty; give at least one point.")
    dtype = jnp.result_type(float)
    if concrete(position):
        _check_position(np.asarray(position), name)
    return Particles(jnp.asarray(position, dtype), _log_weight(weight, num, name))


def _check_position(position: np.ndarray, name: str) -> None:
    with np.errstate(over="ignore"):
        position = position.astype(np.dtype(jnp.result_type(float)))
    bad = ~np.isfinite(position).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} has {bad.sum()} rows with NaN or infinite entries in {position.dtype}"
            f" (first: row {int(bad.argmax())}); remove or repair them."
        )


def _log_weight(weight: Any, num: int, name: str) -> Float[Array, " n"]:
    dtype = jnp.result_type(float)
    if not concrete(weight):
        weight = jnp.asarray(weight, dtype)
        _check_shape(weight.shape, num, name)
        return log_of_weight(weight)
    weight = np.full(num, 1.0 / num) if weight is None else _check_weight(np.asarray(weight), num, name)
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(weight), dtype)


def _check_shape(shape: tuple[int, ...], num: int, name: str) -> None:
    if shape != (num,):
        raise ValueError(f"weights of {name} have shape {shape}; give one per point: ({num},).")


def _check_weight(weight: np.ndarray, num: int, name: str) -> np.ndarray:
    _check_shape(weight.shape, num, name)
    if weight.dtype.kind not in "fiub" or not np.isfinite(weight).all():
        raise ValueError(f"weights of {name} contain NaN, infinite or non-numeric entries; repair them.")
    if (weight < 0).any():
        raise ValueError(f"weights of {name} contain negative values; weights must be >= 0.")
    if not (weight > 0).any():
        raise ValueError(f"weights of {name} are all zero; at least one must be positive.")
    return weight.astype(np.float64)


@jax.jit
def moments(measure: Particles) -> tuple[Float[Array, "*s d"], Float[Array, "*s d d"]]:
    """Mean ``Σ w x`` and covariance ``Σ w (x-x̄)(x-x̄)ᵀ`` of the normalised measure, or of stacked ones.

    Sums are of distances to the heaviest particle, which are exact in floats: positions around 1e6 lose no
    digits of the covariance.
    """
    weight = measure.normalise().weight
    index = jnp.argmax(measure.log_weight, axis=-1, keepdims=True)
    heaviest = jax.lax.stop_gradient(jnp.take_along_axis(measure.position, index[..., None], axis=-2))
    apart = measure.position - heaviest
    mean = jnp.einsum("...n,...nd->...d", weight, apart, precision="highest")
    around = apart - mean[..., None, :]
    square = jnp.einsum("...ni,...nj->...ij", weight[..., None] * around, around, precision="highest")
    return heaviest[..., 0, :] + mean, square


def centre_and_scale(measure: Particles) -> tuple[Float[Array, " d"], Scalar]:
    """Mean, and the standard deviation of all coordinates together; 1 for a single point."""
    mean, covariance = moments(measure)
    variance = jnp.trace(covariance) / mean.shape[0]
    return mean, jnp.sqrt(jnp.where(variance > 0, variance, 1.0))


def with_moments(measure: Particles, mean: Float[Array, " d"], covariance: Float[Array, "d d"]) -> Particles:
    """The measure, moved by an affine map so that its mean and covariance are the given ones.

    Where those of its law are known, means over it of polynomials of degree two are then exact.

    Args:
      measure: more than ``d`` particles, with a covariance of full rank.
      mean: ``[d]``.
      covariance: ``[d, d]``, symmetric positive definite.
    """
    now, spread = moments(measure)
    factor = jnp.linalg.cholesky(covariance)
    standard = jax.scipy.linalg.solve_triangular(
        jnp.linalg.cholesky(spread), (measure.position - now[None]).T, lower=True
    )
    return measure._replace(position=mean[None] + jnp.dot(factor, standard, precision="highest").T)


def equally_weighted(position: Float[Array, "n d"]) -> Particles:
    """Mass 1 in equal shares."""
    num = position.shape[0]
    return Particles(position, jnp.full((num,), -jnp.log(num), position.dtype))


def resample(key: Key, measure: Particles, size: int) -> Particles:
    """Draw ``size`` equally weighted particles by systematic resampling, in random order.

    Particle ``i`` is drawn ``size·w_i/Σw`` times on average, rounded up or down, so that means have less
    variance than under independent draws. The result has mass 1.
    """
    return resample_by(key, measure.position, shares(measure), size)


@jax.jit
def shares(measure: Particles) -> Float[Array, " n"]:
    """Running total of the weights, which ends at 1."""
    return running_total(jax.nn.softmax(measure.log_weight))


@partial(jax.jit, static_argnums=3)
def resample_by(key: Key, position: Float[Array, "n d"], total: Float[Array, " n"], size: int) -> Particles:
    """`resample` by the running total of the weights, for those who draw often."""
    offset_key, order_key = jax.random.split(key)
    dtype = total.dtype
    uniform = 1 - jax.random.uniform(offset_key, dtype=dtype)
    points = (jnp.arange(size, dtype=dtype) + uniform) / size
    index = jax.random.permutation(order_key, inverse_distribution(total, points))
    return Particles(position[index], jnp.full((size,), -jnp.log(size), dtype))


def redrawing(measure: Particles) -> Callable[[Key, int], Particles]:
    """``(key, size) -> Particles``: `resample`, of the mass of the measure, for those who draw often."""
    total, log_mass = shares(measure), jnp.log(measure.mass)

    def draw(key: Key, size: int) -> Particles:
        drawn = resample_by(key, measure.position, total, size)
        return drawn._replace(log_weight=drawn.log_weight + log_mass)

    return draw


def thinned(key: Key, measure: Particles, size: int) -> Particles:
    """The measure itself, or ``size`` particles drawn from it, of its mass, if it has more."""
    return measure if measure.log_weight.size <= size else redrawing(measure)(key, size)


def padded(measure: Particles, size: int) -> Particles:
    """The same measure as ``size`` particles, the last ones without weight: one shape for many measures.

    Raises:
      ValueError: more particles than ``size``.
    """
    missing = size - measure.log_weight.size
    if missing < 0:
        raise ValueError(f"size is {size} and there are {measure.log_weight.size} particles; give as many.")
    position = jnp.pad(measure.position, ((0, missing), (0, 0)), mode="edge")
    return Particles(position, jnp.pad(measure.log_weight, (0, missing), constant_values=-jnp.inf))
