"""Critics: functions of a place that tell two measures apart, with and without a bound on their slope."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from wfr_flows.potentials.base import InitFn
from wfr_flows.typing import Array, Float, Key, Params, Scalar

_ORTHOGONAL_ITERATIONS = 12
# Largest slope of x sigmoid(x).
_SILU_SLOPE = 1.0999
_Map = Callable[[Array], Array]


class Critic(NamedTuple):
    """A scalar function of place.

    Attributes:
      init: ``key -> params``.
      value: ``(params, x: [d]) -> scalar`` for one particle; batch it with `jax.vmap`.
    """

    init: InitFn
    value: Callable[[Params, Float[Array, " d"]], Scalar]


def smooth_critic(dim: int, *, width: int = 64, depth: int = 3) -> Critic:
    """Dense layers with ``x sigmoid(x)`` between them, of any slope: for a gradient penalty, or none."""
    return _network(dim, width, depth, lambda kernel: kernel, nn.silu)


def spectral_critic(dim: int, *, lipschitz: float = 1.0, width: int = 64, depth: int = 3) -> Critic:
    """Every matrix over its largest singular value (Miyato et al., 2018): of slope at most ``lipschitz``.

    That value is exact, by the eigenvalues of the Gram matrix, and not an iterated estimate. The
    activation is ``x sigmoid(x)`` over its own largest slope. What a layer loses in the other singular
    directions nothing restores, so that the bound is seldom nearly reached.
    """
    return _network(dim, width, depth, _spectral, lambda x: nn.silu(x) / _SILU_SLOPE, lipschitz)


def orthogonal_critic(dim: int, *, lipschitz: float = 1.0, width: int = 64, depth: int = 3) -> Critic:
    """Orthogonal matrices and sorted pairs (Anil, Lucas and Grosse, 2019): of slope at most ``lipschitz``.

    Matrices are made orthogonal by the iteration ``W <- W (3I - WᵀW)/2`` of Björck and Bowie (1971), pairs of
    units sorted (GroupSort of size 2): the layers keep the norm of a gradient and the bound can be reached
    everywhere. Piecewise linear. The width is to be even.

    Raises:
      ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(
            f"width is {width}; give an even number, whose halves are sorted against each other."
        )
    return _network(dim, width, depth, _orthogonal, _sorted_pairs, lipschitz)


def _network(
    dim: int, width: int, depth: int, constrain: _Map, activation: _Map, lipschitz: float = 1.0
) -> Critic:
    for name, size in (("dim", dim), ("width", width), ("depth", depth)):
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
    if not lipschitz > 0:
        raise ValueError(f"lipschitz is {lipschitz}; give a number > 0.")
    sizes = (dim, *(width,) * depth, 1)

    def value(params: Params, x: Float[Array, " d"]) -> Scalar:
        *layers, head = params
        for layer in layers:
            x = activation(x @ constrain(layer["kernel"]) + layer["bias"])
        return lipschitz * (x @ constrain(head["kernel"]) + head["bias"])[0]

    return Critic(partial(_init, sizes), value)


# One program for all networks of one shape.
@partial(jax.jit, static_argnums=0)
def _init(sizes: tuple[int, ...], key: Key) -> Params:
    keys = jax.random.split(key, len(sizes) - 1)
    draw, dtype = nn.initializers.lecun_normal(), jnp.result_type(float)
    return [
        {"kernel": draw(k, (inputs, outputs), dtype), "bias": jnp.zeros(outputs, dtype)}
        for k, inputs, outputs in zip(keys, sizes, sizes[1:], strict=False)
    ]


def _spectral(kernel: Array) -> Array:
    small = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
    return kernel / jnp.sqrt(jnp.linalg.eigvalsh(small)[-1])


def _orthogonal(kernel: Array) -> Array:
    wide = kernel.shape[0] < kernel.shape[1]
    matrix = kernel.T if wide else kernel
    # The norm is at most the root of the product of the largest row and column sums.
    size = jnp.abs(matrix)
    matrix = matrix / jnp.sqrt(jnp.max(jnp.sum(size, axis=0)) * jnp.max(jnp.sum(size, axis=1)))
    for _ in range(_ORTHOGONAL_ITERATIONS):
        matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
    return matrix.T if wide else matrix


def _sorted_pairs(x: Array) -> Array:
    first, second = jnp.split(x, 2)
    return jnp.concatenate([jnp.maximum(first, second), jnp.minimum(first, second)])
