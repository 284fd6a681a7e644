"""Input-convex networks, with gradient and Hessian in closed form."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.potentials.convex import (
    ConvexJet,
    ConvexPotential,
    check_shape,
    quadratic_jet,
    quadratic_start,
)
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class _Layer(NamedTuple):
    # Convex quadratics ½xᵀMx + bᵀx + c and the non-negative weights of the layer before.
    curvature: Float[Array, "w d d"]
    linear: Float[Array, "w d"]
    bias: Float[Array, " w"]
    dense: Float[Array, "w w"] | None


class _Units(NamedTuple):
    # Of one layer at one point: σ(u), σ′(u), σ″(u) with σ the softplus, and ∇u before the layers below count.
    value: Float[Array, " w"]
    slope: Float[Array, " w"]
    bend: Float[Array, " w"]
    own: Float[Array, "w d"]


def icnn(
    dim: int,
    *,
    width: int = 64,
    depth: int = 1,
    rank: int = 1,
    scale: float = 1.0,
    sharpness: float = 1.0,
    strong_convexity: float = 1e-6,
) -> ConvexPotential:
    """A DenseICNN beside a full quadratic ([JKO] section 5, appendix B), the identity map at the start.

    ``ψ(x) = vᵀh_L + ½|Rᵀx|² + rᵀx + ½ε|x|²`` with ``h_l = σ(W_l h_{l-1} + q_l(x))``, ``h_0 = 0``, the
    softplus ``σ`` and convex quadratics ``q(x) = ½Σ_r (a_r·x)² + b·x + c``; ``v, W ≥ 0``. With adjoints
    ``z_L = v``, ``z_{l-1} = W_lᵀ(σ′(u_l)⊙z_l)`` the derivatives are closed-form:
    ``∇ψ = Σ_l Σ_i (z_l σ′(u_l))_i ∇q_{l,i} + (RRᵀ + ε)x + r`` and
    ``∇²ψ = Σ_l Σ_i [(z_l σ″(u_l))_i ∇u_{l,i}∇u_{l,i}ᵀ + (z_l σ′(u_l))_i ∇²q_{l,i}] + RRᵀ + ε``.
    The published network begins with a layer without activation, which these quadratics contain.
    The cost per particle is ``O(w d²)``, and ``O(w² d)`` more for every layer after the first.

    Args:
      dim: dimension ``d >= 1``.
      width, depth: ``w`` units in each of ``L`` layers.
      rank: squares in every quadratic; 0 leaves affine functions.
      scale: typical size of a coordinate; the units of the start bend within twice that of the origin.
      sharpness: how abruptly they bend; more for laws with narrow modes.
      strong_convexity: ``ε > 0``.

    Returns:
      A `ConvexPotential` whose parameters are a flat dict in jax's default float type: for layer ``l``
      ``factor_l`` ``[w, rank, d]``, ``linear_l`` ``[w, d]``, ``bias_l`` ``[w]``, ``dense_l`` ``[w, w]``; and
      ``readout`` ``[w]``, ``root`` ``[d, d]``, ``shift`` ``[d]``.

    Raises:
      ValueError: sizes out of range; ``scale``, ``sharpness``, ``strong_convexity`` not positive and finite.
    """
    check_shape(strong_convexity, dim=dim, width=width, depth=depth)
    if rank < 0:
        raise ValueError(f"rank is {rank}; give at least 0.")
    for name, value in (("scale", scale), ("sharpness", sharpness)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; give a finite number > 0.")

    # One program for all networks of one shape.
    init = partial(_init, dim, width, depth, rank, scale, sharpness, strong_convexity)

    def jet(params: Params, x: Float[Array, " d"]) -> ConvexJet:
        return _jet(params, x, strong_convexity)

    def project(params: Params) -> Params:
        weights = {"readout"} | {f"dense_{layer}" for layer in range(1, depth)}
        return {name: jnp.maximum(leaf, 0.0) if name in weights else leaf for name, leaf in params.items()}

    return ConvexPotential(init, lambda params, x: jet(params, x).value, jet, project)


@partial(jax.jit, static_argnums=range(4))
def _init(
    dim: int,
    width: int,
    depth: int,
    rank: int,
    scale: Scalar,
    sharpness: Scalar,
    strong_convexity: Scalar,
    key: Key,
) -> Params:
    start = partial(_start, width, rank, dim, scale, sharpness)
    # All layers at once: drawing is most of the program.
    layers = jax.vmap(start)(jax.random.split(key, depth))
    found = {f"{name}_{layer}": leaf[layer] for layer in range(depth) for name, leaf in layers.items()}
    # Below the first layer there is none.
    del found["dense_0"]
    rest = {"readout": jnp.zeros(width, jnp.result_type(float))} | quadratic_start(dim, strong_convexity)
    return found | rest


def _jet(params: Params, x: Float[Array, " d"], strong_convexity: float) -> ConvexJet:
    layers = _layers(params)
    units = _forward(layers, x)
    value, gradient, hessian = quadratic_jet(params, x, strong_convexity)
    value = value + jnp.vdot(params["readout"], units[-1].value)
    passed, chained = params["readout"], _chained(layers, units)
    for layer, unit, slopes in reversed(list(zip(layers, units, chained, strict=True))):
        adjoint, passed = passed, passed * unit.slope
        gradient = gradient + passed @ unit.own
        bent = (slopes.T * (adjoint * unit.bend)) @ slopes
        hessian = hessian + bent + jnp.tensordot(passed, layer.curvature, 1)
        if layer.dense is not None:
            passed = passed @ layer.dense
    return ConvexJet(value, gradient, hessian)


def _start(width: int, rank: int, dim: int, scale: Scalar, sharpness: Scalar, key: Key) -> dict[str, Array]:
    dtype = jnp.result_type(float)
    keys = jax.random.split(key, 4)
    unit = 1 / scale
    direction = jax.random.normal(keys[0], (width, dim), dtype)
    direction = 2 * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    return {
        "factor": 0.1 * unit * jax.random.normal(keys[1], (width, rank, dim), dtype) / dim**0.5,
        "linear": sharpness * unit * direction,
        "bias": sharpness * jax.random.uniform(keys[2], (width,), dtype, -4.0, 4.0),
        "dense": jax.random.uniform(keys[3], (width, width), dtype, 0.0, 2 / width),
    }


def _layers(params: Params) -> list[_Layer]:
    layers, index = [], 0
    while f"linear_{index}" in params:
        factor = params[f"factor_{index}"]
        layers.append(
            _Layer(
                jnp.einsum("wri,wrj->wij", factor, factor),
                params[f"linear_{index}"],
                params[f"bias_{index}"],
                params.get(f"dense_{index}"),
            )
        )
        index += 1
    return layers


def _forward(layers: list[_Layer], x: Float[Array, " d"]) -> list[_Units]:
    units: list[_Units] = []
    for layer in layers:
        bent = jnp.tensordot(x, layer.curvature, (0, 2))
        before = (0.5 * bent + layer.linear) @ x + layer.bias
        if layer.dense is not None:
            before = before + units[-1].value @ layer.dense.T
        slope = jax.nn.sigmoid(before)
        bend = slope * jax.nn.sigmoid(-before)
        units.append(_Units(jax.nn.softplus(before), slope, bend, bent + layer.linear))
    return units


def _chained(layers: list[_Layer], units: list[_Units]) -> list[Float[Array, "w d"]]:
    """``∇u`` of every unit, the layers below it included."""
    found: list[Array] = []
    for index, (layer, unit) in enumerate(zip(layers, units, strict=True)):
        slopes = unit.own
        if layer.dense is not None:
            slopes = slopes + layer.dense @ (units[index - 1].slope[:, None] * found[-1])
        found.append(slopes)
    return found
