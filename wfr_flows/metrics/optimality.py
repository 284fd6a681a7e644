"""What must hold along a geodesic, measured on trajectories."""

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, ArrayLike, Float, Scalar


def straightness(position: Float[Array, "k n d"], weight: Float[Array, " n"]) -> Scalar:
    """``Σ w |x(1)-x(0)| / Σ w (path length)``: 1 where every path is straight and never turns back.

    Args:
      position: paths at ``k`` times.
      weight: ``[n]`` weights of the paths.

    Returns:
      A number in [0, 1]; 1 if nothing moves.
    """
    chord = jnp.sum(weight * jnp.linalg.norm(position[-1] - position[0], axis=-1))
    length = jnp.sum(weight[None] * jnp.linalg.norm(jnp.diff(position, axis=0), axis=-1))
    return jnp.where(length > 0, chord / jnp.where(length > 0, length, 1.0), 1.0)


def momentum_variation(velocity: Float[Array, "k n d"], log_weight: Float[Array, "k n"]) -> Scalar:
    """Relative variation of ``w·v`` along paths, 0 on a geodesic ([WFR] theorem 3.1).

    ``√(Σ_i w_i(0) mean_t |p_i(t) - p̄_i|² / Σ_i w_i(0) mean_t |p_i(t)|²)`` with ``p = (w(t)/w(0)) v``.

    Args:
      velocity: at ``k`` equidistant times.
      log_weight: normalised at every time.
    """
    ratio = jnp.exp(jnp.where(jnp.isfinite(log_weight[:1]), log_weight - log_weight[:1], 0.0))
    momentum = ratio[..., None] * velocity
    share = jax.nn.softmax(log_weight[0])
    spread = jnp.sum(share * jnp.sum(jnp.var(momentum, axis=0), axis=-1))
    size = jnp.sum(share * jnp.sum(jnp.mean(momentum**2, axis=0), axis=-1))
    return jnp.sqrt(jnp.where(size > 0, spread / jnp.where(size > 0, size, 1.0), 0.0))


def slope_error(time: Float[Array, " k"], value: Float[Array, " k"], slope: ArrayLike) -> Scalar:
    """Relative deviation of a function of time from a straight line, 0 where ``d value/dt = slope``.

    ``√mean((Δvalue/Δtime - slope)²) / |slope|``. Of the mean potential of a geodesic in the gauge of the
    Hamilton-Jacobi equation the slope is ``-d²_SWFR``.

    Args:
      time, value: at ``k >= 2`` times in order.
      slope: not zero.
    """
    return jnp.sqrt(jnp.mean((jnp.diff(value) / jnp.diff(time) - slope) ** 2)) / jnp.abs(slope)
