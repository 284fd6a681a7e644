"""The contract of a scalar potential, and the one implementation that serves any function."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Key, Params, Scalar


class Jet(NamedTuple):
    """A potential and its derivatives at one point ``(t, x)``.

    Attributes:
      value: ``Φ(t, x)``.
      gradient: ``∇ₓΦ``, ``[d]``.
      laplacian: ``tr ∇²ₓΦ``.
      time_derivative: ``∂ₜΦ``.
    """

    value: Scalar
    gradient: Float[Array, " d"]
    laplacian: Scalar
    time_derivative: Scalar


class InitFn(Protocol):
    """``key -> params``, a plain tree of arrays."""

    def __call__(self, key: Key, /) -> Params: ...


class ValueFn(Protocol):
    """``(params, t, x: [d]) -> Φ(t, x)`` for one particle; batch it with `jax.vmap`."""

    def __call__(self, params: Params, t: Scalar, x: Float[Array, " d"], /) -> Scalar: ...


class JetFn(Protocol):
    """``(params, t, x: [d]) -> Jet`` for one particle; what is not used of it is not computed."""

    def __call__(self, params: Params, t: Scalar, x: Float[Array, " d"], /) -> Jet: ...


class Potential(NamedTuple):
    """A scalar field ``Φ(t, x)`` as three pure functions: see `InitFn`, `ValueFn` and `JetFn`."""

    init: InitFn
    value: ValueFn
    jet: JetFn


def from_function(value: ValueFn, init: InitFn | Callable[[Key], Params] = lambda key: {}) -> Potential:
    """The potential of any differentiable ``value(params, t, x)``, its jet by automatic differentiation.

    The Laplacian costs ``d`` Jacobian-vector products of the gradient. This is the oracle that closed
    forms are tested against, and the way to use a potential of one's own.

    >>> potential = from_function(lambda params, t, x: t * jnp.sum(x**2))
    >>> potential.jet({}, jnp.array(2.0), jnp.array([1.0, 3.0])).laplacian
    Array(8., dtype=float32)
    """

    def jet(params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
        gradient_of = jax.grad(value, argnums=2)
        hessian_diagonal = jax.vmap(
            lambda e: jnp.vdot(e, jax.jvp(lambda y: gradient_of(params, t, y), (x,), (e,))[1])
        )(jnp.eye(x.shape[0], dtype=x.dtype))
        time_derivative = jax.jvp(lambda s: value(params, s, x), (t,), (jnp.ones_like(t),))[1]
        return Jet(value(params, t, x), gradient_of(params, t, x), jnp.sum(hessian_diagonal), time_derivative)

    return Potential(init, value, jet)
