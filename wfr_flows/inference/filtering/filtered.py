"""What every filter returns, and the one loop that runs them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows import ConvexMap
from wfr_flows.inference.filtering.model import Observations, StateSpace
from wfr_flows.measures import Particles, moments
from wfr_flows.training import Method
from wfr_flows.typing import Array, Bool, Float, Key, PyTree


class Filtered(NamedTuple):
    """The laws ``p(x_k | y_1, ..., y_k)``; of one time, stacked over all, or mapped over models as well.

    Attributes:
      time: ``[K]``.
      particles: of mass 1, ``[K, n, d]``.
      log_density: ``[K, n]``, of the law at its particles; NaN where the filter does not know it.
      log_evidence: ``[K]``, ``log p(y_k | y_1, ..., y_(k-1))``; 0 where nothing was seen, ``-inf`` where no
        particle could have been (weights are then left as they were), NaN where a likelihood was NaN.
      effective_sample_size: ``[K]``, before any resampling; ``inf`` for exact methods.
      resampled: ``[K]``, whether the filter went on from new particles.
      maps: of filters by a flow, ``[K, num_steps]`` maps from time ``k - 1`` to ``k``; else None.
      predicted: of the WFR filter and the grid, particles before the observation, ``[K, n, d]``; else None.
    """

    time: Float[Array, "*K"]
    particles: Particles
    log_density: Float[Array, "*K n"]
    log_evidence: Float[Array, "*K"]
    effective_sample_size: Float[Array, "*K"]
    resampled: Bool[Array, "*K"]
    maps: ConvexMap | None = None
    predicted: Particles | None = None

    @property
    def mean(self) -> Float[Array, "*K d"]:
        """Means of stacked laws."""
        return self._moments()[0]

    @property
    def covariance(self) -> Float[Array, "*K d d"]:
        """Covariances of stacked laws."""
        return self._moments()[1]

    @property
    def standard_deviation(self) -> Float[Array, "*K d"]:
        """Of every coordinate."""
        return jnp.sqrt(jnp.diagonal(self.covariance, axis1=-2, axis2=-1))

    def _moments(self) -> tuple[Array, Array]:
        # Of one law, of all times, or mapped over anything: every leading axis is one of laws.
        each = moments
        for _ in range(self.particles.log_weight.ndim - 1):
            each = jax.vmap(each)
        return each(self.particles)


def assimilate(method: Method, key: Key, data: Observations) -> Filtered:
    """Run a filter over all observations, as a scan.

    Args:
      method: ``init(key) -> state`` and ``step(key, state, observation) -> (state, Filtered)`` with one
        time and ``[m]`` values of `Observations`.
      data: the observations. Step by step, as data arrive, ``method.step`` does the same.
    """
    start_key, key = jax.random.split(key)

    def body(state: PyTree, now: tuple[Key, Observations]) -> tuple[PyTree, Filtered]:
        return method.step(now[0], state, now[1])

    return jax.lax.scan(body, method.init(start_key), (jax.random.split(key, data.time.size), data))[1]


def log_likelihoods(model: StateSpace, x: Float[Array, "n d"], now: Observations) -> Float[Array, " n"]:
    """``log p(y|x)`` at points for one observation; 0 where nothing was seen."""
    value = jnp.where(now.seen, now.value, 0.0)
    found = jax.vmap(model.sensor.log_likelihood, (None, 0, None))(now.time, x, value)
    return jnp.where(now.seen, found, 0.0)


def too_few(measure: Particles, threshold: float) -> Array:
    """Whether the effective sample size is below a share of the particles."""
    return measure.effective_sample_size < threshold * measure.log_weight.size


def check_counts(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1.")
