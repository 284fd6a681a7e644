"""The OT-Flow potential: a two-layer residual network plus a quadratic, with closed-form derivatives."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from wfr_flows.potentials.base import Jet, Potential
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class _Activation(NamedTuple):
    """``σ(x) = log(2 cosh x)`` and its first two derivatives, elementwise."""

    value: Array
    slope: Array
    curvature: Array


@jax.custom_jvp
def _log_cosh(x: Array) -> _Activation:
    """``σ = |x| + log(1 + e^{-2|x|})``, ``σ′ = tanh x``, ``σ″ = 1 - tanh² x`` from one exponential."""
    magnitude = jnp.abs(x)
    decay = jnp.exp(-2 * magnitude)
    ratio = 1 / (1 + decay)
    slope = jnp.sign(x) * (1 - decay) * ratio
    return _Activation(magnitude + jnp.log1p(decay), slope, 4 * decay * ratio**2)


@_log_cosh.defjvp
def _log_cosh_jvp(primals, tangents):
    (dx,) = tangents
    out = _log_cosh(*primals)
    derivative = (out.slope * dx, out.curvature * dx, -2 * out.slope * out.curvature * dx)
    return out, _Activation(*derivative)


class _ResNet(nn.Module):
    # Vectors stand on the left of every product, so that a batch of particles stays the leading axis.
    dim: int
    width: int
    rank: int
    start: float

    def setup(self):
        dtype = jnp.result_type(float)
        inner = self.dim + 1

        def uniform(fan_in: int):
            bound = fan_in**-0.5
            return lambda key, shape: jax.random.uniform(key, shape, dtype, -bound, bound)

        self.opening = self.param("opening", uniform(inner), (self.width, inner))
        self.opening_bias = self.param("opening_bias", uniform(inner), (self.width,))
        self.hidden = self.param("hidden", uniform(self.width), (self.width, self.width))
        self.hidden_bias = self.param("hidden_bias", uniform(self.width), (self.width,))
        self.readout = self.param("readout", lambda _: jnp.full(self.width, self.start, dtype))
        xavier = nn.initializers.xavier_uniform()
        self.factor = self.param(
            "factor", lambda key: self.start**0.5 * xavier(key, (self.rank, inner), dtype)
        )
        self.slope = self.param("slope", lambda _: jnp.zeros(inner, dtype))
        self.constant = self.param("constant", lambda _: jnp.zeros((), dtype))

    def value(self, t: Scalar, x: Float[Array, " d"]) -> Scalar:
        s = jnp.append(x, t)
        first = _log_cosh(s @ self.opening.T + self.opening_bias)
        second = _log_cosh(first.value @ self.hidden.T + self.hidden_bias)
        return self._head(s, first, second)

    def jet(self, t: Scalar, x: Float[Array, " d"]) -> Jet:
        s = jnp.append(x, t)
        first = _log_cosh(s @ self.opening.T + self.opening_bias)
        second = _log_cosh(first.value @ self.hidden.T + self.hidden_bias)
        adjoint = self.readout + (second.slope * self.readout) @ self.hidden
        gradient = (first.slope * adjoint) @ self.opening + s @ self._curvature() + self.slope
        in_space = self.opening[:, :-1]
        through_hidden = self._squared_row_norms(in_space, first.slope)
        laplacian = jnp.sum(
            first.curvature * adjoint * jnp.sum(in_space**2, axis=1)
            + second.curvature * self.readout * through_hidden
        ) + jnp.sum(self.factor[:, :-1] ** 2)
        return Jet(self._head(s, first, second), gradient[:-1], laplacian, gradient[-1])

    def _head(self, s: Array, first: _Activation, second: _Activation) -> Scalar:
        network = jnp.sum(self.readout * (first.value + second.value))
        return network + jnp.sum(s * (0.5 * (s @ self._curvature()) + self.slope)) + self.constant

    def _curvature(self) -> Array:
        return self.factor.T @ self.factor

    def _squared_row_norms(self, in_space: Float[Array, "m d"], slope: Float[Array, " m"]) -> Array:
        """``‖(K₁ diag(σ′) K₀)ᵢ‖²``: by the Gram matrix of K₀ from ``d > m/2``, where it is faster."""
        if 2 * self.dim <= self.width:
            return jnp.sum(((slope * in_space.T) @ self.hidden.T) ** 2, axis=0)
        chained = self.hidden * slope
        return jnp.sum((chained @ (in_space @ in_space.T)) * chained, axis=1)


def resnet(dim: int, *, width: int = 32, rank: int | None = None, start: float = 0.03) -> Potential:
    """The potential of OT-Flow and [WFR]: ``Φ(s) = ωᵀN(s) + ½ sᵀAᵀAs + bᵀs + c`` with ``s = (x, t)``.

    ``N(s) = u₀ + σ(K₁u₀ + b₁)``, ``u₀ = σ(K₀s + b₀)``, ``σ(x) = |x| + log(1 + e^{-2|x|})``. With
    ``a = σ′(o₀)``, ``t₁ = σ′(o₁)`` and ``z = ω + K₁ᵀ(t₁⊙ω)`` the jet is closed-form:
    ``∇Φ = K₀ᵀ(a⊙z) + AᵀAs + b`` and
    ``tr∇²ₓΦ = Σ(1-a²)⊙z⊙‖K₀ₓ‖²_rows + Σ(1-t₁²)⊙ω⊙‖K₁diag(a)K₀ₓ‖²_rows + ‖Aₓ‖²``.
    The cost per particle is ``O(m² min(d, m))``.

    Args:
      dim: dimension ``d >= 1`` of space.
      width: ``m``, units of both layers.
      rank: rows of ``A``; ``min(10, d + 1)`` by default.
      start: what ``ω`` and ``AᵀA`` begin at, in units of OT-Flow's start. From 1 the first steps of Adam
        shrink the features along with the potential, and what is left of them may not suffice to leave a
        quadratic potential again.

    Returns:
      A `Potential` whose parameters are a flat dict in jax's default float type.

    Raises:
      ValueError: ``dim``, ``width`` or ``rank`` below 1, or a ``start`` that is not positive.
    """
    rank = min(10, dim + 1) if rank is None else rank
    for name, size in (("dim", dim), ("width", width), ("rank", rank)):
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
    if not start > 0:
        raise ValueError(f"start is {start}; give a number > 0.")
    module = _ResNet(dim, width, rank, start)

    return Potential(partial(_init, module), partial(_value, module), partial(_jet, module))


# Traced once for all networks of one shape; what they are part of is the same as if they were not compiled.
@partial(jax.jit, static_argnums=0, inline=True)
def _value(module: _ResNet, params: Params, t: Scalar, x: Float[Array, " d"]) -> Scalar:
    return module.apply({"params": params}, t, x, method="value")  # pyright: ignore[reportReturnType]


@partial(jax.jit, static_argnums=0, inline=True)
def _jet(module: _ResNet, params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
    return module.apply({"params": params}, t, x, method="jet")  # pyright: ignore[reportReturnType]


@partial(jax.jit, static_argnums=0)
def _init(module: _ResNet, key: Key) -> Params:
    dtype = jnp.result_type(float)
    return module.init(key, jnp.zeros((), dtype), jnp.zeros(module.dim, dtype), method="value")["params"]
