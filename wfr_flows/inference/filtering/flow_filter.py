"""Filters that predict by a flow with density: nothing is simulated, and the law is known at any point."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows import Sample
from wfr_flows.inference.filtering.filtered import Filtered, check_counts, log_likelihoods, too_few
from wfr_flows.inference.filtering.model import Observations, StateSpace
from wfr_flows.inference.filtering.prediction import Prediction
from wfr_flows.inference.filtering.rejuvenation import (
    kernels,
    kernels_log_density,
    metropolis_hastings,
    rejuvenated,
)
from wfr_flows.inference.importance import reweighted
from wfr_flows.measures import equally_weighted
from wfr_flows.training import Method, copied
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class FlowState(NamedTuple):
    """What the next observation needs.

    Attributes:
      time: of the particles.
      sample: weighted particles, and the log-density of their law at each.
      params: of the convex network, where training begins.
    """

    time: Scalar
    sample: Sample
    params: Params


def wfr_filter(
    model: StateSpace,
    prediction: Prediction,
    *,
    num_particles: int = 8192,
    threshold: float = 0.5,
) -> Method:
    """Transport by a Wasserstein gradient flow, growth by the likelihood: particles keep weight and density.

    Between observations particles move along the flow that the `prediction` learns from them; at one, weight
    and density are multiplied by the likelihood, without noise. Only where weights have become too uneven,
    new ones take their place, evenly spread, of a smoothed law before the observation times the likelihood:
    see `rejuvenation.rejuvenated`.

    Args:
      model: its initial law needs a density.
      prediction: see `flow_prediction`.
      num_particles: how many.
      threshold: the share of the particles below which the effective sample size must not fall.

    Returns:
      A `training.Method` for `assimilate`. `flow_log_density` gives the law at any point.
    """

    def step(key: Key, state: FlowState, now: Observations) -> tuple[FlowState, Filtered]:
        flow_key, draw_key = jax.random.split(key)
        params, maps = prediction.learn(flow_key, state.params, state.sample, state.time, now.time)
        predicted = prediction.carry(maps, state.sample, state.time, now.time)
        updated, log_evidence = _updated(model, predicted, now)
        size = updated.particles.effective_sample_size
        few = too_few(updated.particles, threshold) & now.seen & (log_evidence > -jnp.inf)

        def renewed() -> tuple[Sample, Scalar]:
            seen = partial(log_likelihoods, model, now=now)
            return rejuvenated(draw_key, predicted.particles, updated.particles, seen)

        sample, log_evidence = jax.lax.cond(few, renewed, lambda: (updated, log_evidence))
        law = Filtered(
            now.time,
            sample.particles,
            sample.log_density,
            log_evidence,
            size,
            few,
            maps,
            predicted.particles,
        )
        return FlowState(now.time, sample, params), law

    return Method(_begin(model, prediction, num_particles), step)


class ChainState(NamedTuple):
    """What the next observation needs.

    Attributes:
      time: of the particles.
      pool: of the prior flow, its weights the likelihood of everything seen along each path.
      chains: particles that the law is learned from.
      params: of the convex network, where training begins.
    """

    time: Scalar
    pool: Sample
    chains: Sample
    params: Params


def metropolis_filter(
    model: StateSpace,
    prediction: Prediction,
    *,
    num_particles: int = 16384,
    num_chains: int = 8192,
    warm_up: int = 1000,
) -> Method:
    """Blocks of JKO steps, and Metropolis-Hastings chains at the observations ([JKO] algorithm 3).

    Proposals are particles of the prior, carried through the blocks so far: see `metropolis_hastings`. The
    longer the series, the fewer of them are accepted. Where no chain has been, maps extrapolate, and
    `flow_log_density` can be far too large there. `wfr_filter` has neither weakness.

    Args:
      model, prediction: as in `wfr_filter`.
      num_particles: of the pool of proposals.
      num_chains: whose ends are the particles, all of the same weight.
      warm_up: steps of the chains at an observation.

    Returns:
      A `training.Method` for `assimilate`; the evidence and the effective sample size are of the pool.
    """
    check_counts(num_chains=num_chains, warm_up=warm_up)
    begin = _begin(model, prediction, num_particles)

    def init(key: Key) -> ChainState:
        begin_key, chain_key = jax.random.split(key)
        state = begin(begin_key)
        chains = _chains(chain_key, state.sample, num_chains, warm_up)
        return ChainState(state.time, state.sample, chains, state.params)

    def step(key: Key, state: ChainState, now: Observations) -> tuple[ChainState, Filtered]:
        flow_key, chain_key = jax.random.split(key)
        params, maps = prediction.learn(flow_key, state.params, state.chains, state.time, now.time)
        pool = prediction.carry(maps, state.pool, state.time, now.time)
        pool, log_evidence = _updated(model, pool, now)
        chains = _chains(chain_key, pool, num_chains, warm_up)
        size = pool.particles.effective_sample_size
        return ChainState(now.time, pool, chains, params), Filtered(
            now.time, *chains, log_evidence, size, jnp.zeros((), bool), maps
        )

    return Method(init, step)


def flow_log_density(
    model: StateSpace,
    prediction: Prediction,
    data: Observations,
    found: Filtered,
    x: Float[Array, "n d"],
) -> Float[Array, " n"]:
    """``log p(x_K | y_1, ..., y_K)`` at any points after the last of the observations ([JKO] eqs. 16-18).

    Points go back through the maps, to the last time at which particles were drawn anew, or to the start.

    Args:
      model, prediction: as in the filter.
      data, found: the observations and what `assimilate` made of them; for an earlier time, the first ones of
        both.
      x: ``[n, d]``.

    Returns:
      ``[n]``; NaN where an inverse has not converged.
    """
    assert model.initial.log_density is not None
    initial = jax.vmap(model.initial.log_density)
    start = jnp.concatenate([jnp.full((1,), model.start, data.time.dtype), data.time[:-1]])

    def back(carry: tuple[Array, Array, Array], at: tuple[Observations, Scalar, Filtered]):
        (x, total, _), (now, begin, one) = carry, at
        log_likelihood = log_likelihoods(model, x, now)
        total = total + jnp.where(one.log_evidence != -jnp.inf, log_likelihood - one.log_evidence, 0.0)

        def smoothed() -> tuple[Array, Array, Array]:
            assert one.predicted is not None
            return x, total + kernels_log_density(kernels(one.predicted), x), jnp.ones((), bool)

        def carried() -> tuple[Array, Array, Array]:
            assert one.maps is not None
            before, log_det = prediction.carry_back(one.maps, x, begin, now.time)
            return before, total - log_det, jnp.zeros((), bool)

        return carried() if one.predicted is None else jax.lax.cond(one.resampled, smoothed, carried)

    def body(carry: tuple[Array, Array, Array], at: tuple[Observations, Scalar, Filtered]):
        return jax.lax.cond(carry[2], lambda: carry, lambda: back(carry, at)), None

    first = x, jnp.zeros(x.shape[0], x.dtype), jnp.zeros((), bool)
    (origin, total, done), _ = jax.lax.scan(body, first, (data, start, found), reverse=True)
    return total + jnp.where(done, 0.0, initial(origin))


def _begin(model: StateSpace, prediction: Prediction, num_particles: int):
    check_counts(num_particles=num_particles)
    log_density = model.initial.log_density
    if log_density is None:
        raise ValueError("the initial law has no density; give one that has, as measures.gaussian.")

    def init(key: Key) -> FlowState:
        particle_key, key = jax.random.split(key)
        particles = model.initial.spread(particle_key, num_particles)
        sample = Sample(particles, jax.vmap(log_density)(particles.position))
        start = jnp.asarray(model.start, sample.log_density.dtype)
        return copied(FlowState(start, sample, prediction.init(key)))

    return init


def _updated(model: StateSpace, sample: Sample, now: Observations) -> tuple[Sample, Scalar]:
    """Bayes' rule, for weights and for the density."""
    log_likelihood = log_likelihoods(model, sample.particles.position, now)
    particles, log_evidence = reweighted(sample.particles, log_likelihood)
    gain = jnp.where(log_evidence != -jnp.inf, log_likelihood - log_evidence, 0.0)
    return Sample(particles, sample.log_density + gain), log_evidence


def _chains(key: Key, pool: Sample, num_chains: int, warm_up: int) -> Sample:
    chosen, _ = metropolis_hastings(key, pool.particles.log_weight, num_chains, warm_up)
    return Sample(equally_weighted(pool.particles.position[chosen]), pool.log_density[chosen])
