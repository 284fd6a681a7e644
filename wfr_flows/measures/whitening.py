"""Coordinates in which a law has mean 0 and covariance I."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures.particles import Particles, moments
from wfr_flows.typing import Array, Float, Scalar

_RIDGE = 1e-6


class Whitening(NamedTuple):
    """``x -> z = L⁻¹(x - centre)`` with the Cholesky factor ``L`` of a covariance; points or ``[..., d]``.

    Attributes:
      centre: ``[d]``.
      factor: ``L``, ``[d, d]``.
      inverse: ``L⁻¹``, ``[d, d]``.
    """

    centre: Float[Array, " d"]
    factor: Float[Array, "d d"]
    inverse: Float[Array, "d d"]

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        return jnp.dot(x - jnp.broadcast_to(self.centre, x.shape), self.inverse.T, precision="highest")

    def back(self, z: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """``x = centre + L z``."""
        return jnp.broadcast_to(self.centre, z.shape) + jnp.dot(z, self.factor.T, precision="highest")

    @property
    def log_det(self) -> Scalar:
        """``log det L``: ``log p(x) = log p(z) - log det L``."""
        return jnp.sum(jnp.log(jnp.diagonal(self.factor)))

    def log_density_of(
        self, log_density: Callable[[Float[Array, " d"]], Scalar]
    ) -> Callable[[Array], Scalar]:
        """``z -> log p(z)`` from ``x -> log p(x)``."""
        return lambda z: log_density(self.back(z)) + self.log_det


@jax.jit
def whitening(measure: Particles) -> Whitening:
    """The whitening of weighted particles of any mass.

    A millionth of its variance is added to every coordinate, for clouds that are flat in other directions.
    Coordinates that do not vary, beyond rounding, get a millionth of the widest variance; 1 where the cloud
    is a point.

    >>> white = whitening(Particles(jnp.array([[1.0], [5.0]]), jnp.zeros(2)))
    >>> white(jnp.array([5.0]))
    Array([0.9999995], dtype=float32)
    """
    centre, covariance = moments(measure)
    variance = jnp.diagonal(covariance)
    widest = jnp.max(variance)
    rounding = (jnp.finfo(centre.dtype).eps * jnp.abs(centre)) ** 2
    varies = variance > rounding
    floor = jnp.where(widest > 0, _RIDGE * widest, 1.0)
    ridge = jnp.where(varies, _RIDGE * variance, floor)
    return whitening_by(centre, covariance + jnp.diag(ridge))


@jax.jit
def whitening_by(mean: Float[Array, " d"], covariance: Float[Array, "d d"]) -> Whitening:
    """The whitening of a law with these moments; the covariance has to be positive definite."""
    factor = jnp.linalg.cholesky(covariance)
    identity = jnp.eye(mean.size, dtype=factor.dtype)
    return Whitening(mean, factor, jax.scipy.linalg.solve_triangular(factor, identity, lower=True))
