"""The Bernoulli equation with an unknown start: a posterior with a sharp edge, known on a grid."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Distribution, gaussian
from wfr_flows.typing import Array, Float, Key, Scalar

_TRUTH = 0.2
_NOISE = 0.4
_PRIOR_MEAN = 0.5


class Bernoulli(NamedTuple):
    """Observations ``D_k = v(t_k; x) + noise`` of ``v̇ = v - v³``, ``v(0) = x``, to infer ``x`` from.

    Attributes:
      time: ``[T]`` of the observations.
      observed: ``[T]``.
      prior: ``N(0.5, 1)`` on ``x``.
      log_likelihood: ``(x: [n, 1], first, last) -> [n]``, of observations ``first`` to ``last - 1``, from 0.
    """

    time: Float[Array, " T"]
    observed: Float[Array, " T"]
    prior: Distribution
    log_likelihood: Callable[[Float[Array, "n 1"], int, int], Float[Array, " n"]]

    def log_posterior(self, x: Float[Array, "n 1"], num: int) -> tuple[Float[Array, " n"], Scalar]:
        """Log-density of the posterior after ``num`` observations at equidistant nodes, and the log-evidence.

        By the rectangle rule, so that the nodes must cover all of it.
        """
        assert self.prior.log_density is not None
        joint = jax.vmap(self.prior.log_density)(x) + self.log_likelihood(x, 0, num)
        log_evidence = jax.nn.logsumexp(joint) + jnp.log(x[1, 0] - x[0, 0])
        return joint - log_evidence, log_evidence


def bernoulli(key: Key, *, step: float = 1.0, num: int = 50) -> Bernoulli:
    """The example of [WFR] section 6.3: the truth is 0.2, the noise has standard deviation 0.4.

    ``v(t; x) = x (x² + (1 - x²) e^{-2t})^{-1/2}`` tends to the sign of ``x``: early observations tell
    where it started, late ones only on which side of 0.

    Args:
      key: seeds the noise.
      step: between observations; 1 offline, 0.1 online in the paper.
      num: of observations.
    """
    time = step * jnp.arange(1, num + 1)
    observed = _solution(jnp.asarray(_TRUTH), time) + _NOISE * jax.random.normal(key, (num,))

    def log_likelihood(x: Float[Array, "n 1"], first: int, last: int) -> Float[Array, " n"]:
        apart = (observed[first:last] - _solution(x, time[first:last])) / _NOISE
        constant = jnp.log(_NOISE) + 0.5 * jnp.log(2 * jnp.pi)
        return -0.5 * jnp.sum(apart**2, axis=1) - (last - first) * constant

    return Bernoulli(time, observed, gaussian(jnp.array([_PRIOR_MEAN]), jnp.eye(1)), log_likelihood)


def _solution(x: Array, time: Array) -> Array:
    return x / jnp.sqrt(x**2 + (1 - x**2) * jnp.exp(-2 * time))
