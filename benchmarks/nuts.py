"""Long chains of blackjax's NUTS, an independent reference for posteriors; blackjax is optional."""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.inference import Laplace

AVAILABLE = importlib.util.find_spec("blackjax") is not None


class Chains(NamedTuple):
    """Moments over all draws of all chains, and how good they are.

    Attributes:
      mean, deviation: ``[d]``.
      effective_sample_size: the least over coordinates.
      split: the greatest potential scale reduction over coordinates, 1 for chains that agree.
      divergent: share of draws.
    """

    mean: jax.Array
    deviation: jax.Array
    effective_sample_size: jax.Array
    split: jax.Array
    divergent: jax.Array


def chains(
    key: jax.Array, log_density: LogDensity, start: Laplace, num_chains: int, num_draws: int, warm_up: int
) -> Chains:
    """Draws in the coordinates in which ``start`` is standard normal, begun from it, wider by a half."""
    import blackjax  # noqa: PLC0415

    factor = jnp.linalg.cholesky(start.covariance)

    def target(z: jax.Array) -> jax.Array:
        return log_density(start.mode + factor @ z)

    adapt_key, begin_key, run_key = jax.random.split(key, 3)
    first = 1.5 * jax.random.normal(begin_key, (num_chains, start.mode.size))
    adaptation = blackjax.window_adaptation(blackjax.nuts, target)
    (_, parameters), _ = adaptation.run(adapt_key, first[0], warm_up)  # pyright: ignore
    kernel = blackjax.nuts(target, **parameters)

    def chain(key: jax.Array, position: jax.Array):
        def step(state, key: jax.Array):
            state, info = kernel.step(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(step, kernel.init(position), jax.random.split(key, warm_up + num_draws))[1]

    draws, divergent = jax.vmap(chain)(jax.random.split(run_key, num_chains), first)
    draws, divergent = draws[:, warm_up:], divergent[:, warm_up:]
    x = start.mode + draws @ factor.T
    return Chains(
        x.mean(axis=(0, 1)),
        x.std(axis=(0, 1)),
        blackjax.diagnostics.effective_sample_size(x).min(),
        blackjax.diagnostics.potential_scale_reduction(x).max(),
        divergent.mean(),
    )
