"""A start for the generator: straight lines of an optimal assignment, without simulation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from wfr_flows.dynamics import Field, batched
from wfr_flows.geodesics import Loss
from wfr_flows.measures import Distribution
from wfr_flows.numerics import squared_distance
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class Lines(NamedTuple):
    """Straight lines from ``start`` to ``end``, both ``[n, d]``, of equal weight."""

    start: Float[Array, "n d"]
    end: Float[Array, "n d"]


def optimal_lines(
    key: Key, source: Distribution, target: Distribution, *, size: int = 2900, repeats: int = 1
) -> Lines:
    """``size`` samples of either end, joined by the optimal assignment for ``W₂``; on the host.

    Args:
      key: for the samples, which weigh the same.
      source, target: of one dimension.
      size: of either sample; the time grows with its cube, 2 s at 2900.
      repeats: as many times anew: the average over plans is nearer to that between the measures themselves.
    """

    def assigned(key: Key) -> Lines:
        start_key, end_key = jax.random.split(key)
        start, end = source.sample(start_key, size).position, target.sample(end_key, size).position
        _, order = scipy.optimize.linear_sum_assignment(np.asarray(squared_distance(start, end), np.float64))
        return Lines(start, end[order])

    return Lines(*map(jnp.concatenate, zip(*map(assigned, jax.random.split(key, repeats)), strict=True)))


def straight_lines(field: Field, lines: Lines, *, num_times: int = 16, num_pairs: int = 32) -> Loss:
    """``½ E (1 - t)² |v(t, x_t) - (x₁ - x₀)|²`` with ``x_t = (1 - t) x₀ + t x₁``: where each would arrive.

    The factor makes of an error of velocity that of the place where a straight line from there ends.

    Args:
      field: its velocity is matched.
      lines: drawn at random.
      num_times, num_pairs: drawn at every evaluation; times are stratified over [0, 1].
    """
    rates_at = jax.vmap(batched(field), (None, 0, 0))

    def loss(params: Params, key: Key) -> Scalar:
        time_key, pair_key = jax.random.split(key)
        dtype = lines.start.dtype
        time = (jnp.arange(num_times) + jax.random.uniform(time_key, (num_times,), dtype)) / num_times
        pair = jax.random.randint(pair_key, (num_times, num_pairs), 0, lines.start.shape[0])
        start, end = lines.start[pair], lines.end[pair]
        left = (1 - time).astype(dtype)[:, None, None]
        rates = rates_at(params, 1 - left[:, 0, 0], left * start + (1 - left) * end)
        return 0.5 * jnp.mean(jnp.sum((left * (rates.velocity - (end - start))) ** 2, axis=-1))

    return loss
