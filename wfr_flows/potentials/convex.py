"""Strongly convex potentials: gradient and Hessian in closed form, and the inverse of the gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.numerics import log_det
from wfr_flows.typing import Array, ArrayLike, Float, Key, Params, Scalar


class ConvexJet(NamedTuple):
    """A convex potential and its derivatives at one point.

    Attributes:
      value: ``ψ(x)``.
      gradient: ``∇ψ(x)``, ``[d]``.
      hessian: ``∇²ψ(x)``, ``[d, d]``, symmetric positive definite.
    """

    value: Scalar
    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]


class ConvexPotential(NamedTuple):
    """A strongly convex ``ψ(x)`` as pure functions; its gradient is an invertible map.

    Attributes:
      init: ``key -> params``, with which ``∇ψ`` is the identity.
      value: ``(params, x: [d]) -> scalar`` for one particle; batch it with `jax.vmap`.
      jet: ``(params, x: [d]) -> ConvexJet``; what is not used of it is not computed.
      project: ``params -> params``, the nearest with which ``ψ`` is convex; to be called after every update.
    """

    init: Callable[[Key], Params]
    value: Callable[[Params, Float[Array, " d"]], Scalar]
    jet: Callable[[Params, Float[Array, " d"]], ConvexJet]
    project: Callable[[Params], Params]


def quadratic_start(dim: int, strong_convexity: ArrayLike) -> Params:
    """``root`` and ``shift`` with which `quadratic_jet` is that of ``½|x|²``."""
    root = (1 - strong_convexity) ** 0.5 * jnp.eye(dim, dtype=jnp.result_type(float))
    return {"root": root, "shift": jnp.zeros(dim, root.dtype)}


def quadratic_jet(params: Params, x: Float[Array, " d"], strong_convexity: float) -> ConvexJet:
    """``½|Rᵀx|² + r·x + ½ε|x|²``: what every network has beside its units."""
    root, shift = params["root"], params["shift"]
    curvature = root @ root.T + strong_convexity * jnp.eye(x.shape[0], dtype=root.dtype)
    slope = x @ curvature
    return ConvexJet(0.5 * jnp.vdot(x, slope) + jnp.vdot(shift, x), slope + shift, curvature)


def check_shape(strong_convexity: float, **sizes: int) -> None:
    """Refuse networks without points or units, and those that are not strongly convex.

    Raises:
      ValueError: naming the argument.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give at least 1.")
    if not 0 < strong_convexity < 1:
        raise ValueError(f"strong_convexity is {strong_convexity}; give a number between 0 and 1.")


def doubled(potential: ConvexPotential) -> ConvexPotential:
    """``2ψ - ½|x|²``, whose gradient takes points twice as far as ``∇ψ``.

    Convex only where ``∇²ψ ≥ ½``; log-determinants are NaN elsewhere.
    """

    def jet(params: Params, x: Float[Array, " d"]) -> ConvexJet:
        value, gradient, hessian = potential.jet(params, x)
        identity = jnp.eye(x.shape[0], dtype=hessian.dtype)
        return ConvexJet(2 * value - 0.5 * jnp.vdot(x, x), 2 * gradient - x, 2 * hessian - identity)

    return potential._replace(value=lambda params, x: jet(params, x).value, jet=jet)


def push_forward(
    potential: ConvexPotential, params: Params, x: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """``∇ψ(x)`` and ``log det ∇²ψ(x)`` of a batch, exactly.

    A density ``ρ`` becomes ``log ρ(x) - log det ∇²ψ(x)`` at ``∇ψ(x)``.
    """
    jets = jax.vmap(potential.jet, (None, 0))(params, x)
    return jets.gradient, log_det(jets.hessian)


def pull_back(
    potential: ConvexPotential,
    params: Params,
    y: Float[Array, "n d"],
    *,
    tolerance: float | None = None,
    max_steps: int = 100,
) -> Float[Array, "n d"]:
    """The ``x`` with ``∇ψ(x) = y``: the gradient of the convex conjugate ``ψ*`` at ``y``.

    Newton's method from ``x = y`` with the exact Hessian; a step that does not lower ``|∇ψ(x) - y|`` is
    halved. ``∇ψ`` is strongly monotone, so that this converges from anywhere. Derivatives are those of the
    implicit function.

    Args:
      tolerance: of ``|∇ψ(x) - y| / (1 + |y|)``; ``1e-10`` in double precision, ``1e-5`` in single by default.
      max_steps: Newton steps, halved ones included.

    Returns:
      ``[n, d]``; NaN where that has not converged.
    """
    if tolerance is None:
        tolerance = 1e-10 if y.dtype == jnp.float64 else 1e-5
    enough = tolerance * (1 + jnp.linalg.norm(y, axis=1))
    jets = jax.vmap(potential.jet, (None, 0))

    def newton(jet: ConvexJet, target: Array) -> Array:
        factor = jax.scipy.linalg.cho_factor(jet.hessian, lower=True)
        return jax.scipy.linalg.cho_solve(factor, (target - jet.gradient)[..., None])[..., 0]

    def miss(jet: ConvexJet) -> Float[Array, " n"]:
        return jnp.linalg.norm(jet.gradient - y, axis=1)

    def unfinished(carry) -> Array:
        _, jet, _, step = carry
        return (step < max_steps) & jnp.any(miss(jet) > enough)

    def improve(carry):
        x, jet, share, step = carry
        trial = x + share[:, None] * newton(jet, y)
        there = jets(params, trial)
        better = miss(there) <= (1 - 0.1 * share) * miss(jet)
        keep = better & (miss(jet) > enough)
        x, jet = jax.tree.map(
            lambda new, old: jnp.where(keep.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            (trial, there),
            (x, jet),
        )
        return x, jet, jnp.where(better, jnp.minimum(1.0, 2 * share), 0.5 * share), step + 1

    start = (y, jets(params, y), jnp.ones_like(enough), 0)
    x, jet, _, _ = jax.lax.stop_gradient(
        jax.lax.while_loop(unfinished, improve, jax.lax.stop_gradient(start))
    )
    # One step more, in which the derivatives of the implicit function are those of the numerator.
    again = jets(params, x)
    found = x + newton(again._replace(hessian=jet.hessian), y)
    return jnp.where((miss(jet) <= enough)[:, None], found, jnp.nan)
