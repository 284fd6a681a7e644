"""Weighted data that arrive in turns: reweight, learn from where the last turn ended, generate anew."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.geodesics.generator import Generator, Learned
from wfr_flows.measures import Particles, resample
from wfr_flows.training import last_good
from wfr_flows.typing import Array, Float, Key, Scalar

LogLikelihood = Callable[[Float[Array, "n d"]], Float[Array, " n"]]


class Online(NamedTuple):
    """What is known so far.

    Attributes:
      particles: weighted samples of mass 1 that the model was learned from.
      log_evidence: logarithm of the mean likelihood of everything so far.
      effective_sample_size: of the particles, before any resampling.
      learned: the model of them; None before the first update.
    """

    particles: Particles
    log_evidence: Scalar
    effective_sample_size: Scalar
    learned: Learned | None


def begin(prior: Particles) -> Online:
    """Before any data: weighted samples of the prior, the evidence 1."""
    prior = prior.normalise()
    return Online(prior, jnp.zeros((), prior.log_weight.dtype), prior.effective_sample_size, None)


def update(
    key: Key,
    generator: Generator,
    state: Online,
    log_likelihood: LogLikelihood | Float[Array, " n"],
    *,
    num_samples: int | None = None,
    resampled: bool = False,
) -> Online:
    """One turn of the online algorithm ([WFR] algorithm 3): fresh samples, new weights, a model of both.

    Samples ``θ_i`` of the last model get the weights ``w̄_i ∝ p(D|θ_i) w_i`` of the new data ``D``, and the
    model is learned anew from its last parameters. The evidence grows by ``Σ p(D|θ_i) w_i``.

    Args:
      key: seeds sampling and training.
      generator: see `generator`.
      state: from `begin`, or the last update.
      log_likelihood: ``θ: [n, d] -> [n]``, ``log p(D|θ)``; or its values at the particles of ``state``,
        which are then reweighted as they are, without fresh ones.
      num_samples: fresh samples; as many as before by default.
      resampled: whether particles are drawn anew, equally weighted, before learning.

    Returns:
      The new state.

    Raises:
      ValueError: likelihoods that are NaN, infinite or zero at every particle, or of the wrong shape.
      training.NonFiniteError: training diverged; its state is the `Online` of the last good model.
    """
    sample_key, resample_key, learn_key = jax.random.split(key, 3)
    particles = state.particles
    if callable(log_likelihood):
        if state.learned is not None:
            size = num_samples or particles.log_weight.size
            particles = jax.jit(generator.sample, static_argnums=2)(sample_key, state.learned, size)
        log_likelihood = log_likelihood(particles.position)
    _check(log_likelihood, particles)
    log_weight = particles.log_weight + log_likelihood
    particles = Particles(particles.position, log_weight).normalise()
    size = particles.effective_sample_size
    if resampled:
        particles = resample(resample_key, particles, particles.log_weight.size)
    log_evidence = state.log_evidence + jax.nn.logsumexp(log_weight)
    with last_good(lambda learned: Online(particles, log_evidence, size, learned)):
        learned = generator.learn(learn_key, particles, start=state.learned)
    return Online(particles, log_evidence, size, learned)


def _check(log_likelihood: Array, particles: Particles) -> None:
    values = np.asarray(log_likelihood)
    if values.shape != particles.log_weight.shape:
        raise ValueError(
            f"log_likelihood has shape {values.shape}; give one value per particle,"
            f" {particles.log_weight.shape}."
        )
    if np.isnan(values).any() or (values == np.inf).any():
        raise ValueError(
            "log_likelihood holds NaN or +inf; give finite values, or -inf where the likelihood is zero."
        )
    if not np.isfinite(values + np.asarray(particles.log_weight)).any():
        raise ValueError(
            "log_likelihood is -inf wherever a particle has weight; give samples nearer to the data, or more."
        )
