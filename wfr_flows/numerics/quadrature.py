"""Quadrature on the nodes of a time grid."""

import jax.numpy as jnp

from wfr_flows.typing import Array, Float


def simpson_weights(grid: Float[Array, " k"]) -> Float[Array, " k"]:
    """Weights ``w`` with ``Σ w f(grid) ≈ ∫ f``: composite Simpson on any monotone grid of ``k >= 2`` nodes.

    Intervals are taken in pairs through the parabola of their three nodes (order 4 on a uniform grid). An
    odd last interval uses the parabola through its own and the preceding node. Decreasing grids give the
    signed integral.

    >>> simpson_weights(jnp.linspace(0.0, 1.0, 3)) * 6
    Array([1., 4., 1.], dtype=float32)
    """
    num_intervals = grid.shape[0] - 1
    h = jnp.diff(grid)
    weights = jnp.zeros_like(grid)
    if num_intervals == 1:
        return weights.at[:2].add(h[0] / 2)
    pairs = num_intervals // 2
    left, right = h[: 2 * pairs : 2], h[1 : 2 * pairs : 2]
    total = (left + right) / 6
    first = jnp.arange(pairs) * 2
    weights = weights.at[first].add(total * (2 - right / left))
    weights = weights.at[first + 1].add(total * (left + right) ** 2 / (left * right))
    weights = weights.at[first + 2].add(total * (2 - left / right))
    if num_intervals % 2:
        before, last = h[-2], h[-1]
        weights = weights.at[-1].add(last * (2 * last + 3 * before) / (6 * (before + last)))
        weights = weights.at[-2].add(last * (last + 3 * before) / (6 * before))
        weights = weights.at[-3].add(-(last**3) / (6 * before * (before + last)))
    return weights
