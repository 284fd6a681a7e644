"""Maps of space that begin as the identity: affine, residual networks, gradients of convex potentials."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows.potentials import ConvexPotential, SiluNetwork, initialised
from wfr_flows.typing import Array, Float, Key, Params


class ApplyFn(Protocol):
    """``(params, x: [n, d], key) -> [n, d]``; with a key dropout is on, without it is off."""

    def __call__(
        self, params: Params, x: Float[Array, "n d"], /, key: Key | None = None
    ) -> Float[Array, "n d"]: ...


class TransportMap(NamedTuple):
    """A map of space as pure functions.

    Attributes:
      init: ``key -> params``.
      apply: see `ApplyFn`.
      project: applied to parameters after every update; the identity but for convex networks.
    """

    init: Callable[[Key], Params]
    apply: ApplyFn
    project: Callable[[Params], Params] = lambda params: params


def affine(dim: int) -> TransportMap:
    """``T(x) = x + A x + b``, the identity at the start: all that Gaussians in quadratic potentials need."""
    _check(dim=dim)

    def init(key: Key) -> Params:
        del key
        dtype = jnp.result_type(float)
        return {"matrix": jnp.zeros((dim, dim), dtype), "shift": jnp.zeros(dim, dtype)}

    def apply(params: Params, x: Float[Array, "n d"], key: Key | None = None) -> Float[Array, "n d"]:
        del key
        return x + x @ params["matrix"].T + params["shift"]

    return TransportMap(init, apply)


def residual(dim: int, *, width: int = 64, depth: int = 3, dropout: float = 0.0) -> TransportMap:
    """``T(x) = x + A x + N(x)`` of dense layers with ``x sigmoid(x)``, the identity at the start.

    Args:
      dim: dimension ``d >= 1``.
      width: units of a layer.
      depth: layers between input and output.
      dropout: in [0, 1), on in training only.

    Raises:
      ValueError: a number out of its range.
    """
    _check(dim=dim, width=width, depth=depth)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; give a number in [0, 1).")
    linear, network = affine(dim), SiluNetwork((width,) * depth, dim, dropout)

    def init(key: Key) -> Params:
        return {"affine": linear.init(key), "network": initialised(network, dim, key)}

    def apply(params: Params, x: Float[Array, "n d"], key: Key | None = None) -> Float[Array, "n d"]:
        rngs = None if key is None else {"dropout": key}
        bend = network.apply({"params": params["network"]}, x, rngs=rngs)
        return linear.apply(params["affine"], x) + bend  # pyright: ignore[reportOperatorIssue]

    return TransportMap(init, apply)


def gradient_of(potential: ConvexPotential) -> TransportMap:
    """``T = ∇ψ`` of a convex potential, as `potentials.icnn`: the optimal map from ``ρ`` to ``T#ρ``."""

    def apply(params: Params, x: Float[Array, "n d"], key: Key | None = None) -> Float[Array, "n d"]:
        del key
        return jax.vmap(lambda y: potential.jet(params, y).gradient)(x)

    return TransportMap(potential.init, apply, potential.project)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
