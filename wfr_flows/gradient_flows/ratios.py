"""Positive functions, positive by construction: ratios of densities by their logarithms."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.potentials import SiluNetwork, initialised
from wfr_flows.typing import Array, Float, Key, Params


class LogRatio(NamedTuple):
    """A positive function ``h`` by its logarithm.

    Attributes:
      init: ``key -> params``; ``h = 1`` there.
      log_value: ``(params, x: [n, d], key) -> log h: [n]``; with a key dropout is on.
    """

    init: Callable[[Key], Params]
    log_value: Callable[..., Float[Array, " n"]]


class Link(NamedTuple):
    """How a number becomes a positive one.

    Attributes:
      log_value: ``u -> log h``.
      start: the ``u`` of ``h = 1``.
    """

    log_value: Callable[[Array], Array]
    start: float


def _log_softplus(u: Array) -> Array:
    # Below -20 it is u up to rounding, and the softplus of far less would vanish.
    return jnp.where(u < -20, u, jnp.log(jax.nn.softplus(jnp.maximum(u, -20))))


exponential = Link(lambda u: u, 0.0)
"""``h = exp(u)``: exact for Gaussians, where ``u`` is quadratic."""

softplus = Link(_log_softplus, 0.5413248546129181)
"""``h = log(1 + exp(u))``: linear where large, for densities that vanish at the edge of their support."""

squared = Link(lambda u: jnp.log(u**2 + 1e-10), 1.0)
"""``h = u²`` and a floor."""


def log_ratio(
    dim: int,
    *,
    width: int = 64,
    depth: int = 2,
    link: Link = exponential,
    dropout: float = 0.0,
) -> LogRatio:
    """``h`` of a quadratic function plus a network of dense layers, 1 at the start.

    The quadratic part, in coordinates in which the reference is isotropic, makes the ratio of two Gaussians
    exact, so that the network learns only what is left.

    Args:
      dim: dimension ``d >= 1``.
      width: units of a layer.
      depth: layers between input and output; 0 leaves the quadratic part alone.
      link: see `Link`.
      dropout: in [0, 1), on in training only.

    Raises:
      ValueError: a number out of its range.
    """
    if dim < 1 or width < 1 or depth < 0 or not 0 <= dropout < 1:
        raise ValueError(
            f"dim is {dim}, width {width}, depth {depth}, dropout {dropout};"
            " give dim and width of at least 1, depth of at least 0 and dropout in [0, 1)."
        )
    network = SiluNetwork((width,) * depth, 1, dropout)

    def init(key: Key) -> Params:
        dtype = jnp.result_type(float)
        params: dict[str, Params] = {
            "constant": jnp.asarray(link.start, dtype),
            "slope": jnp.zeros(dim, dtype),
            "curvature": jnp.zeros((dim, dim), dtype),
        }
        if depth > 0:
            params["network"] = initialised(network, dim, key)
        return params

    def log_value(params: Params, x: Float[Array, "n d"], key: Key | None = None) -> Float[Array, " n"]:
        u = params["constant"] + x @ params["slope"] + 0.5 * jnp.sum((x @ params["curvature"]) * x, axis=1)
        if depth > 0:
            rngs = None if key is None else {"dropout": key}
            u += network.apply({"params": params["network"]}, x, rngs=rngs)[:, 0]  # pyright: ignore
        return link.log_value(u)

    return LogRatio(init, log_value)
