"""Densities along a flow whose maps are gradients of convex networks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows.variational_jko import Move
from wfr_flows.potentials import ConvexPotential, pull_back, push_forward
from wfr_flows.typing import Array, Float, Scalar


def push_log_density(
    potential: ConvexPotential, moves: Move, position: Float[Array, "n d"], log_density: Float[Array, " n"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Carry points of ``ρ_0`` and ``log ρ_0`` at them through all maps: ``log ρ_K`` where they end.

    Args:
      potential: whose `gradient_of` the maps were.
      moves: stacked, of `evolve`.
      position: ``[n, d]``.
      log_density: ``[n]``.

    Returns:
      ``[n, d]`` and ``[n]``; the latter NaN for a scheme of order 2.

    Raises:
      ValueError: moves of a forward-backward scheme.
    """
    _check(moves)

    def body(carry: tuple[Array, Array], move: Move):
        x, log_rho = carry
        inner, log_det = push_forward(potential, move.params, (x - move.centre) / move.scale)
        return (move.centre + move.scale * inner, log_rho - log_det), None

    (x, log_rho), _ = jax.lax.scan(body, (position, log_density), moves)
    return x, _known(moves, log_rho)


def log_density_at(
    potential: ConvexPotential,
    moves: Move,
    log_density: Callable[[Float[Array, " d"]], Scalar],
    x: Float[Array, "n d"],
) -> Float[Array, " n"]:
    """``log ρ_K`` at any points, through the inverses of all maps ([VWGF] eqs. 14-15).

    Args:
      potential, moves: as in `push_log_density`.
      log_density: ``log ρ_0``, of one point.
      x: ``[n, d]``.

    Raises:
      ValueError: moves of a forward-backward scheme.
    """
    _check(moves)

    def body(carry: tuple[Array, Array], move: Move):
        y, total = carry
        inner = pull_back(potential, move.params, (y - move.centre) / move.scale)
        _, log_det = push_forward(potential, move.params, inner)
        return (move.centre + move.scale * inner, total + log_det), None

    (origin, total), _ = jax.lax.scan(body, (x, jnp.zeros(x.shape[0], x.dtype)), moves, reverse=True)
    return _known(moves, jax.vmap(log_density)(origin) - total)


def _known(moves: Move, log_rho: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.where(jnp.any(moves.inertia != 0), jnp.nan, log_rho)


def _check(moves: Move) -> None:
    if moves.sources.log_weight.shape[-1] > 0:
        raise ValueError("moves of a forward-backward scheme have no inverse here; use the joint scheme.")
