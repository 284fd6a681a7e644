"""A deep smooth network as a potential."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from wfr_flows.potentials.base import Jet, Potential
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class SiluNetwork(nn.Module):
    """Dense layers with ``x sigmoid(x)`` between them; the last one begins at zero.

    Attributes:
      widths: of the layers between.
      outputs: of the last layer.
      dropout: share of the units of a layer that is left out where a generator of that name is given.
    """

    widths: Sequence[int]
    outputs: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """``[..., i] -> [..., outputs]``."""
        dtype = jnp.result_type(float)
        for width in self.widths:
            inputs = nn.silu(nn.Dense(width, dtype=dtype, param_dtype=dtype)(inputs))
            if self.dropout > 0:
                inputs = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(inputs)
        start = nn.initializers.zeros
        return nn.Dense(self.outputs, dtype=dtype, param_dtype=dtype, kernel_init=start)(inputs)


@partial(jax.jit, static_argnums=(0, 1))
def initialised(network: nn.Module, inputs: int, key: Key) -> Params:
    """Parameters that a network of ``inputs`` numbers begins with: one program for all of one shape."""
    return network.init(key, jnp.zeros(inputs, jnp.result_type(float)))["params"]


def mlp(dim: int, *, width: int = 64, depth: int = 3) -> Potential:
    """``Φ(t, x)`` as a network of ``depth`` layers with ``x sigmoid(x)`` between them, 0 at the start.

    Deeper than `resnet`, and better where the potential bends in many places, as between the clusters of a
    sample. Value, gradient and time derivative take one backward pass, the Laplacian ``d`` more.

    Args:
      dim: dimension ``d >= 1`` of space.
      width: units of a layer.
      depth: layers between input and output.

    Raises:
      ValueError: one of them below 1.
    """
    for name, size in (("dim", dim), ("width", width), ("depth", depth)):
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
    network = SiluNetwork((width,) * depth, 1)

    return Potential(partial(initialised, network, dim + 1), partial(_value, network), partial(_jet, network))


# Traced once for all networks of one shape; what they are part of is the same as if they were not compiled.
@partial(jax.jit, static_argnums=0, inline=True)
def _value(network: SiluNetwork, params: Params, t: Scalar, x: Float[Array, " d"]) -> Scalar:
    return _of(network, params, jnp.append(x, t))


@partial(jax.jit, static_argnums=0, inline=True)
def _jet(network: SiluNetwork, params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
    inputs = jnp.append(x, t)
    of = partial(_of, network, params)
    at, slope = jax.value_and_grad(of)(inputs)

    def curvature(direction: Float[Array, " d+1"]) -> Scalar:
        return jnp.vdot(direction, jax.jvp(jax.grad(of), (inputs,), (direction,))[1])

    laplacian = jnp.sum(jax.vmap(curvature)(jnp.eye(x.size, inputs.size, dtype=inputs.dtype)))
    return Jet(at, slope[:-1], laplacian, slope[-1])


def _of(network: SiluNetwork, params: Params, inputs: Float[Array, " d+1"]) -> Scalar:
    return network.apply({"params": params}, inputs)[0]  # pyright: ignore[reportIndexIssue]
