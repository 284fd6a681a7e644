"""Drawing: indices in proportion to weights, and points of the unit cube."""

from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Int, Key

_LATTICE_DIMENSIONS = 8


@jax.jit
def running_total(weight: Float[Array, " n"]) -> Float[Array, " n"]:
    """Cumulative sums that never decrease, and rise only where there is weight.

    A parallel sum, by rounding, may fall at some entries and rise at entries of weight zero.
    """
    return jax.lax.cummax(jnp.where(weight > 0, jnp.cumsum(weight), 0.0))


@jax.jit
def inverse_distribution(total: Float[Array, " n"], point: Float[Array, "*s"]) -> Int[Array, "*s"]:
    """The index whose share of a `running_total` holds ``point`` in (0, 1]; never one without weight.

    >>> inverse_distribution(running_total(jnp.array([0.0, 1.0, 0.0, 3.0])), jnp.array([0.1, 0.25, 0.3, 1.0]))
    Array([1, 1, 3, 3], dtype=int32)
    """
    return jnp.searchsorted(total, point * total[-1])


@partial(jax.jit, static_argnames=("n", "dim"))
def lattice(key: Key, n: int, dim: int) -> Float[Array, "n dim"]:
    """``n`` points in ``(0, 1)^dim``, each uniform, together more evenly spread than independent ones.

    The Kronecker sequence ``frac(i a + shift)`` with ``a_j = g^-j``, ``g`` the root of ``g^(dim+1) = g + 1``
    (Roberts, 2018), and a random shift. Every run of neighbours in it is evenly spread too. From
    the ninth on, coordinates are independent: ``g`` comes so close to 1 that they would follow each other.
    """
    shift_key, rest_key = jax.random.split(key)
    evenly = min(dim, _LATTICE_DIMENSIONS)
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (evenly + 1))
    # Fractions of 2^32 as integers, whose overflow is the fractional part, without rounding.
    step = jnp.array([int(2**32 * root**-j) for j in range(1, evenly + 1)], jnp.uint32)
    index = jnp.arange(n, dtype=jnp.uint32)[:, None]
    start = jax.random.bits(shift_key, (evenly,), jnp.uint32)
    rest = jax.random.bits(rest_key, (n, dim - evenly), jnp.uint32)
    fraction = jnp.concatenate([start[None] + index * step[None], rest], axis=1) >> 9
    return (fraction.astype(jnp.result_type(float)) + 0.5) / 2**23
