"""Weights and their logarithms, with derivatives at weight zero.

The chain rule through ``log`` divides by the weight and that through ``exp`` multiplies by it. At weight zero
both would be ``0/0``; here they divide and multiply by one tiny number, so that whatever depends on weights
through their logarithms keeps its derivative in a weight at ``0+``.
"""

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float


def _tiny(value: Array) -> float:
    return float(jnp.finfo(value.dtype).tiny) ** 0.5


@jax.custom_jvp
def log_of_weight(weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``log(weight)`` of non-negative weights, with finite derivatives at 0.

    >>> jax.grad(lambda w: weight_of_log(log_of_weight(w)))(0.0)
    Array(1., dtype=float32, weak_type=True)
    """
    return jnp.log(weight)


@log_of_weight.defjvp
def _log_of_weight_jvp(primals: tuple, tangents: tuple) -> tuple:
    (weight,), (moved,) = primals, tangents
    return log_of_weight(weight), moved / jnp.where(weight > 0, weight, _tiny(weight))


@jax.custom_jvp
def weight_of_log(log_weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``exp(log_weight)``, the inverse of `log_of_weight` with its derivative at weight zero."""
    return jnp.exp(log_weight)


@weight_of_log.defjvp
def _weight_of_log_jvp(primals: tuple, tangents: tuple) -> tuple:
    (log_weight,), (moved,) = primals, tangents
    weight = weight_of_log(log_weight)
    return weight, moved * jnp.where(log_weight > -jnp.inf, weight, _tiny(weight))


@jax.custom_jvp
def log_normalised(log_weight: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
    """Logarithms of weights of sum 1 along the last axis, in proportion to the given ones."""
    return jax.nn.log_softmax(log_weight, axis=-1)


@log_normalised.defjvp
def _log_normalised_jvp(primals: tuple, tangents: tuple) -> tuple:
    (log_weight,), (moved,) = primals, tangents
    result = log_normalised(log_weight)
    carries = log_weight > -jnp.inf
    # Of a weight in the sum, not of its logarithm in itself.
    one_in_sum = jnp.exp(-jax.nn.logsumexp(log_weight, axis=-1, keepdims=True))
    at_zero = moved * one_in_sum
    share = jnp.where(carries, moved * jnp.exp(result), at_zero * _tiny(log_weight))
    return result, jnp.where(carries, moved - share.sum(axis=-1, keepdims=True), at_zero)
