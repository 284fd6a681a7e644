"""Interaction energies ``½∬ W(x - y) ρ(dx) ρ(dy)`` and their forces, pairs in blocks: memory is linear."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import in_blocks
from wfr_flows.typing import Array, Float, Scalar

_NUMBERS_PER_PAIR = 256  # blocks for `in_blocks` that stay in a cache

Kernel = Callable[[Float[Array, " d"]], Scalar]
"""``W``: an even function of the difference ``x - y: [d]``; it need not be finite at 0."""


def interaction_force(kernel: Kernel, points: Float[Array, "m d"], measure: Particles) -> Float[Array, "m d"]:
    """``∇(W * ρ)`` at points: ``Σ_j w_j ∇W(x - y_j)``, the velocity of the flow but for its sign.

    A particle that coincides with a point does not act on it, so that the points may be the particles
    themselves, however singular the kernel.

    Args:
      kernel: see `Kernel`.
      points: ``[m, d]``.
      measure: ``[n, d]`` weighted particles, of mass 1 for a probability measure.

    Raises:
      ValueError: dimensions that differ.
    """
    _check_dimensions(points, measure)

    def block(some: Float[Array, "s d"]) -> Float[Array, "s d"]:
        force = _at_pairs(jax.grad(kernel), some, measure.position)
        return jnp.sum(measure.weight * force, axis=-1).T

    return in_blocks(block, points, _NUMBERS_PER_PAIR * measure.log_weight.size)


def interaction_energy(kernel: Kernel, measure: Particles) -> Scalar:
    """``½ Σ_{i≠j} w_i w_j W(x_i - x_j) / (1 - Σ w_i²)``, without bias for independent particles of mass 1."""

    def block(some: Float[Array, "s d"]) -> Float[Array, " s"]:
        return jnp.sum(measure.weight * _at_pairs(kernel, some, measure.position), axis=-1)

    field = in_blocks(block, measure.position, _NUMBERS_PER_PAIR * measure.log_weight.size)
    return 0.5 * jnp.sum(measure.weight * field) / (1 - jnp.sum(measure.weight**2))


def _at_pairs(function: Callable, x: Float[Array, "s d"], y: Float[Array, "n d"]) -> Array:
    """A function of ``x_i - y_j``, pairs last: ``[..., s, n]``; 0 where the points coincide."""
    difference = x.T[:, :, None] - y.T[:, None, :]
    apart = jnp.any(difference != 0, axis=0)
    # One pair per lane, where a short last axis would leave most of a vector register empty.
    away = jnp.where(apart, difference, 1.0).reshape(x.shape[1], -1)
    value = jax.vmap(function, in_axes=1, out_axes=-1)(away)
    return jnp.where(apart, value.reshape(*value.shape[:-1], *apart.shape), 0.0)


def _check_dimensions(points: Array, measure: Particles) -> None:
    if points.shape[1] != measure.position.shape[1]:
        raise ValueError(
            f"points {points.shape} and positions {measure.position.shape} do not fit; give one dimension."
        )
