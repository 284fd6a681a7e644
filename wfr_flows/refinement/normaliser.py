"""The mass of an energy model, by annealed importance sampling."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Distribution
from wfr_flows.typing import Array, Float, Key, Scalar

_ACCEPTED = 0.6
_ADAPTED = 1.1


class Normaliser(NamedTuple):
    """An estimate of the logarithm of a mass, and what it can be trusted by.

    Attributes:
      log_mass: the estimate; its error is about one over the root of the effective sample size, and where
        that is but a few, the mass is most likely larger.
      effective_sample_size: of the chains under their weights.
      acceptance: share of the moves that were accepted.
    """

    log_mass: Scalar
    effective_sample_size: Scalar
    acceptance: Scalar


def log_normaliser(
    key: Key,
    base: Distribution,
    log_ratio: Callable[[Float[Array, " d"]], Scalar],
    *,
    num_samples: int = 1024,
    num_levels: int = 100,
) -> Normaliser:
    """``log E_base exp(log-ratio)``, 0 of a perfect ratio: what to subtract from an `energy_model`.

    Chains go from the base to the model through ``p_base exp(β r)``, ``β`` from 0 to 1, and weigh each step
    of ``β`` by what it adds (Neal, 2001), with a Metropolis-adjusted Langevin step at every level, whose size
    is adapted to the acceptance at the levels before. One level is plain importance sampling, which sees
    nothing of a model that has its mass where the base has no samples.

    Args:
      base: with a density; its samples begin the chains.
      log_ratio: ``x: [d] -> log p/p_base``.
      num_samples, num_levels: chains, and steps of ``β``.

    Raises:
      ValueError: fewer than one level, or a base without density.
    """
    density = base.log_density
    if num_levels < 1 or density is None:
        raise ValueError(f"num_levels is {num_levels}; give at least 1, and a base with a log_density.")
    start_key, key = jax.random.split(key)
    x = base.sample(start_key, num_samples).position
    at = jax.vmap(jax.value_and_grad(log_ratio)), jax.vmap(jax.value_and_grad(density))

    def level(carry, own: tuple[Key, Scalar]):
        x, (ratio, plain), log_weight, size = carry
        move_key, accept_key = jax.random.split(own[0])
        log_weight += ratio[0] / num_levels

        def push(ratio, plain) -> Array:
            return size * (own[1] * ratio[1] + plain[1])

        def log_joint(ratio, plain) -> Array:
            return own[1] * ratio[0] + plain[0]

        proposed = x + push(ratio, plain) + jnp.sqrt(2 * size) * jax.random.normal(move_key, x.shape, x.dtype)
        other = at[0](proposed), at[1](proposed)
        way = jnp.sum((proposed - x - push(ratio, plain)) ** 2, axis=1)
        return_way = jnp.sum((x - proposed - push(*other)) ** 2, axis=1)
        gain = log_joint(*other) - log_joint(ratio, plain) + (way - return_way) / (4 * size)
        taken = jnp.log(jax.random.uniform(accept_key, gain.shape, x.dtype)) < gain

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        x, after = jax.tree.map(keep, (proposed, other), (x, (ratio, plain)))
        rate = jnp.mean(taken, dtype=x.dtype)
        size = size * jnp.where(rate > _ACCEPTED, _ADAPTED, 1 / _ADAPTED)
        return (x, after, log_weight, size), rate

    begun = x, (at[0](x), at[1](x)), jnp.zeros(num_samples, x.dtype), jnp.asarray(0.1, x.dtype)
    levels = jnp.arange(1, num_levels + 1, dtype=x.dtype) / num_levels
    (_, _, log_weight, _), rates = jax.lax.scan(level, begun, (jax.random.split(key, num_levels), levels))
    total = jax.nn.logsumexp(log_weight)
    effective = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weight))
    return Normaliser(total - jnp.log(num_samples), effective, jnp.mean(rates))
