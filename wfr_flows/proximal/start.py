"""A start for the generator: straight lines of optimal assignments, without simulation."""

from itertools import pairwise
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
    key: Key, source: Distribution, target: Distribution, num: int = 20300, *, most: int = 1450
) -> Lines:
    """Samples of either end, joined by optimal assignments for ``W₂``; on the host.

    Evenly spread particles of either end are dealt out at random to assignments of at most ``most``. To first
    order what one of them has too much of some place the others have too little, and the average over them
    is that of a single large one. (Independent samples give every cluster of a target its mass up to chance
    alone, and training hardly mends that.)

    Args:
      key: for the samples, which weigh the same.
      source, target: of one dimension.
      num: particles of either end.
      most: the time of an assignment grows with its cube; half a second at 1450.

    Returns:
      ``num`` `Lines`.
    """

    def dealt(law: Distribution, key: Key) -> Float[Array, "n d"]:
        spread_key, order_key = jax.random.split(key)
        return resample(order_key, law.spread(spread_key, num), num).position

    start, end = map(dealt, (source, target), jax.random.split(key))
    firsts = [round(num * i / -(-num // most)) for i in range(-(-num // most) + 1)]
    cost, order = jax.jit(squared_distance), []
    for i, j in pairwise(firsts):
        _, partner = scipy.optimize.linear_sum_assignment(np.asarray(cost(start[i:j], end[i:j]), np.float64))
        order.append(i + partner)
    return Lines(start, end[np.concatenate(order)])


def straight_lines(
    field: Field, lines: Lines, *, power: float = 1.0, num_times: int = 16, num_pairs: int = 32
) -> Loss:
    """``½ E (1 - t)² |v(t, x_t) - (x₁ - x₀)|²`` with ``x_t = (1 - t) x₀ + t x₁``: where each would arrive.

    The factor makes of an error of velocity that of the place where a straight line from there ends.

    Args:
      field: its velocity is matched.
      lines: drawn at random.
      power: of times uniform on [0, 1]; above 1 more of them are early, where a single step wants the
        velocity to be right.
      num_times, num_pairs: drawn at every evaluation; times are stratified.
    """
    rates_at = jax.vmap(batched(field), (None, 0, 0))

    def loss(params: Params, key: Key) -> Scalar:
        time_key, pair_key = jax.random.split(key)
        dtype = lines.start.dtype
        place = (jnp.arange(num_times) + jax.random.uniform(time_key, (num_times,), dtype)) / num_times
        pair = jax.random.randint(pair_key, (num_times, num_pairs), 0, lines.start.shape[0])
        start, end = lines.start[pair], lines.end[pair]
        left = (1 - place**power).astype(dtype)[:, None, None]
        rates = rates_at(params, 1 - left[:, 0, 0], left * start + (1 - left) * end)
        return 0.5 * jnp.mean(jnp.sum((left * (rates.velocity - (end - start))) ** 2, axis=-1))

    return loss
