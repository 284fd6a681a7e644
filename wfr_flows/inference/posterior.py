"""From samples of a prior and a likelihood to a generator of the posterior."""

from collections.abc import Callable

from wfr_flows import geodesics
from wfr_flows.geodesics import Generator, Learned, Online
from wfr_flows.geodesics.online import LogLikelihood
from wfr_flows.inference.importance import weigh
from wfr_flows.measures import Particles
from wfr_flows.typing import Array, Float, Key, Scalar


def posterior(
    key: Key,
    generator: Generator,
    prior: Particles,
    log_likelihood: LogLikelihood | Float[Array, " n"],
    *,
    resampled: bool = False,
) -> Online:
    """Learn the posterior ``∝ p(D|θ) p(θ)`` from samples of the prior ([WFR] section 5, offline).

    The samples get the weights ``w_i ∝ p(D|θ_i)`` and a `geodesics.generator` learns them: weighted samples
    of the posterior are ``generator.sample(key, state.learned, n)``, its density is
    ``generator.log_density(state.learned, θ)``. When more data come, `geodesics.update` goes on from the
    result.

    Args:
      key: seeds the training.
      generator: what learns.
      prior: samples of the prior; or of any proposal, with weights ``p(θ)/q(θ)``.
      log_likelihood: ``θ: [n, d] -> [n]``, or its values at the samples.
      resampled: as in `geodesics.update`.

    Returns:
      `geodesics.Online`: with the model, the weighted samples it was learned from, their effective sample
      size and the logarithm of the evidence ``p(D)``, the weighted mean of the likelihood.

    Raises:
      ValueError: as `geodesics.update`.
    """
    return geodesics.update(key, generator, geodesics.begin(prior), log_likelihood, resampled=resampled)


def log_evidence(
    key: Key,
    generator: Generator,
    learned: Learned,
    log_joint: Callable[[Float[Array, "n d"]], Float[Array, " n"]],
    num_samples: int = 4096,
) -> tuple[Scalar, Scalar]:
    """``log ∫ p(D|θ) p(θ) dθ`` by importance sampling from a learned posterior ``q``, and its standard error.

    ``log Σ w_i p(D|θ_i) p(θ_i) / q(θ_i)`` over weighted samples of ``q``. The nearer ``q`` is to the
    posterior, the less the ratio varies: far less than the likelihood does over the prior.

    Args:
      key: seeds the samples.
      generator, learned: the model of the posterior.
      log_joint: ``θ: [n, d] -> [n]``, ``log p(D|θ) + log p(θ)`` with all constants.
      num_samples: how many.

    Returns:
      The estimate, and its standard error by the delta method.
    """
    samples = generator.sample(key, learned, num_samples)
    log_ratio = log_joint(samples.position) - generator.log_density(learned, samples.position)
    found = weigh(samples, log_ratio)
    return found.log_evidence, found.standard_error
