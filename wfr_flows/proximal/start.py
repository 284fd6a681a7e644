"""A start for the generator: straight lines of a certified optimal plan, without simulation."""

import jax
import jax.numpy as jnp

from wfr_flows import static
from wfr_flows.dynamics import Field, batched
from wfr_flows.geodesics import Loss
from wfr_flows.geodesics.matching import draw
from wfr_flows.measures import Particles
from wfr_flows.numerics import running_total
from wfr_flows.static import Diracs
from wfr_flows.typing import Key, Params, Scalar


def optimal_plan(source: Particles, target: Particles, *, tolerance: float = 1e-3) -> Diracs:
    """Pairs of an optimal plan for ``½W₂²`` between the probability measures, of relative ``tolerance``."""

    def solve(source: Particles, target: Particles) -> Diracs:
        result = static.wfr(source, target, jnp.inf, tolerance=tolerance)
        return static.semi_coupling(result, source, target, jnp.inf)

    return jax.jit(solve)(source.normalise(), target.normalise())


def straight_lines(field: Field, diracs: Diracs, *, num_times: int = 16, num_pairs: int = 64) -> Loss:
    """``½ E (1 - t)² |v(t, x_t) - (x₁ - x₀)|²`` with ``x_t = (1 - t) x₀ + t x₁``: where each would arrive.

    The factor makes of an error of velocity that of the place where a straight line from there ends.

    Args:
      field: its velocity is matched.
      diracs: pairs ``(x₀, x₁)``, drawn by their mass.
      num_times, num_pairs: drawn at every evaluation; times are stratified over [0, 1].
    """
    total = running_total(diracs.source_mass)
    rates_at = jax.vmap(batched(field), (None, 0, 0))

    def loss(params: Params, key: Key) -> Scalar:
        time, pair = draw(jax.random.split(key), total, num_times, num_pairs)
        start, end = diracs.source[pair], diracs.target[pair]
        left = (1 - time)[:, None, None]
        rates = rates_at(params, time, left * start + (1 - left) * end)
        return 0.5 * jnp.mean(jnp.sum((left * (rates.velocity - (end - start))) ** 2, axis=-1))

    return loss
