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


def annealed_normaliser(
    key: Key,
    base: Distribution,
    log_ratio: Callable[[Float[Array, " d"]], Scalar],
    *,
    num_samples: int = 1024,
    num_levels: int = 100,
) -> Normaliser:
    """``log E_base exp(log-ratio)``, 0 of a perfect ratio, to be subtracted from an `energy_model`.

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
    ratio_at, base_at = (jax.vmap(jax.value_and_grad(function)) for function in (log_ratio, density))

    def at(x: Float[Array, "n d"]) -> _Chains:
        return _Chains(x, *ratio_at(x), *base_at(x))

    def level(carry: tuple[_Chains, Array, Scalar], own: tuple[Key, Scalar]):
        chains, log_weight, size = carry
        log_weight += chains.ratio / num_levels
        chains, rate = _moved(own[0], at, chains, own[1], size)
        size = size * jnp.where(rate > _ACCEPTED, _ADAPTED, 1 / _ADAPTED)
        return (chains, log_weight, size), rate

    begun = at(x), jnp.zeros(num_samples, x.dtype), jnp.asarray(0.1, x.dtype)
    levels = jnp.arange(1, num_levels + 1, dtype=x.dtype) / num_levels
    (_, log_weight, _), rates = jax.lax.scan(level, begun, (jax.random.split(key, num_levels), levels))
    total = jax.nn.logsumexp(log_weight)
    effective = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weight))
    return Normaliser(total - jnp.log(num_samples), effective, jnp.mean(rates))


class _Chains(NamedTuple):
    """Places, and there the log-ratio and the log-density of the base with their gradients."""

    position: Float[Array, "n d"]
    ratio: Float[Array, " n"]
    ratio_slope: Float[Array, "n d"]
    base: Float[Array, " n"]
    base_slope: Float[Array, "n d"]


def _moved(
    key: Key, at: Callable[[Array], _Chains], now: _Chains, beta: Scalar, size: Scalar
) -> tuple[_Chains, Scalar]:
    """A Metropolis-adjusted Langevin step for ``p_base exp(β r)``, and the share of it that was accepted."""
    move_key, accept_key = jax.random.split(key)

    def aim(chains: _Chains) -> Array:
        return chains.position + size * (beta * chains.ratio_slope + chains.base_slope)

    x = now.position
    other = at(aim(now) + jnp.sqrt(2 * size) * jax.random.normal(move_key, x.shape, x.dtype))
    way = jnp.sum((other.position - aim(now)) ** 2, axis=1)
    way_back = jnp.sum((x - aim(other)) ** 2, axis=1)
    gain = beta * (other.ratio - now.ratio) + other.base - now.base + (way - way_back) / (4 * size)
    taken = jnp.log(jax.random.uniform(accept_key, gain.shape, x.dtype)) < gain

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(keep, other, now), jnp.mean(taken, dtype=x.dtype)
