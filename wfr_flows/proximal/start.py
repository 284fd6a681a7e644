"""A start for the generator: straight lines of an optimal assignment, without simulation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from wfr_flows.dynamics import Field, batched
from wfr_flows.geodesics import Loss
from wfr_flows.measures import Distribution, resample
from wfr_flows.numerics import squared_distance
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class Lines(NamedTuple):
    """Straight lines from ``start`` to ``end``, both ``[n, d]``, of equal weight."""

    start: Float[Array, "n d"]
    end: Float[Array, "n d"]


def optimal_lines(
    key: Key, source: Distribution, target: Distribution, *, size: int = 1450, repeats: int = 14
) -> Lines:
    """Samples of either end, joined by optimal assignments for ``W₂``; on the host.

    ``size · repeats`` evenly spread particles of either end are dealt out at random to the assignments.
    To first order what one of them has too much of some place the others have too little, and the average
    over them is that of a single large assignment: independent samples give every cluster of a target its
    mass up to chance alone, and training hardly mends that.

    Args:
      key: for the samples, which weigh the same.
      source, target: of one dimension.
      size: of either sample in an assignment; the time grows with its cube, half a second at 1450.
      repeats: number of assignments.

    Returns:
      `Lines`, ``size · repeats`` of them, assignment after assignment.
    """
    num = size * repeats

    def dealt(law: Distribution, key: Key) -> Float[Array, "r n d"]:
        spread_key, order_key = jax.random.split(key)
        position = resample(order_key, law.spread(spread_key, num), num).position
        return position.reshape(repeats, size, -1)

    start, end = map(dealt, (source, target), jax.random.split(key))
    costs = map(jax.jit(squared_distance), start, end)
    order = [scipy.optimize.linear_sum_assignment(np.asarray(cost, np.float64))[1] for cost in costs]
    return Lines(start.reshape(num, -1), jnp.concatenate([x[o] for x, o in zip(end, order, strict=True)]))


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
