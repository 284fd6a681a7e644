"""The exact filter of linear models: Kalman's at the observations, Kalman and Bucy's moments between them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.inference.filtering.filtered import Filtered
from wfr_flows.inference.filtering.model import LinearGaussian, Observations
from wfr_flows.inference.filtering.particle_filter import check_counts
from wfr_flows.measures import gaussian, standard_normal, with_moments
from wfr_flows.training import Method
from wfr_flows.typing import Array, Float, Key, Scalar


class KalmanState(NamedTuple):
    """Mean and covariance, and their time."""

    time: Scalar
    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]


def kalman_filter(model: LinearGaussian, num_particles: int = 1024) -> Method:
    """Kalman's filter with exact moments between observations.

    The gain is ``K = P Hᵀ S⁻¹`` with ``S = H P Hᵀ + R``; the covariance ``(I - KH) P (I - KH)ᵀ + K R Kᵀ``.

    Args:
      model: linear.
      num_particles: that stand for the laws in the result, evenly spread, with exactly their moments.

    Returns:
      A `training.Method` for `assimilate`, deterministic up to the particles.
    """
    check_counts(num_particles=num_particles)
    dim = model.mean.shape[0]
    if num_particles <= dim:
        raise ValueError(f"num_particles is {num_particles}; give more than {dim}, the dimension.")

    def init(key: Key) -> KalmanState:
        del key
        return KalmanState(jnp.asarray(model.start, model.mean.dtype), model.mean, model.covariance)

    def step(key: Key, state: KalmanState, now: Observations) -> tuple[KalmanState, Filtered]:
        transition, shift, spread = moments_after(model, now.time - state.time)
        mean = transition @ state.mean + shift
        covariance = transition @ state.covariance @ transition.T + spread
        mean, covariance, log_evidence = _updated(model, mean, covariance, now)
        particles = with_moments(standard_normal(dim).spread(key, num_particles), mean, covariance)
        log_density = gaussian(mean, covariance).log_density
        assert log_density is not None
        exact, never = jnp.full_like(log_evidence, jnp.inf), jnp.zeros((), bool)
        return KalmanState(now.time, mean, covariance), Filtered(
            now.time, particles, jax.vmap(log_density)(particles.position), log_evidence, exact, never
        )

    return Method(init, step)


def moments_after(
    model: LinearGaussian, time: Scalar
) -> tuple[Float[Array, "d d"], Float[Array, " d"], Float[Array, "d d"]]:
    """``F = e^{At}``, ``∫₀ᵗ e^{As} b ds``, ``∫₀ᵗ e^{As} L Lᵀ e^{Aᵀs} ds``, from two matrix exponentials.

    After Van Loan (1978): ``exp(t [[-A, LLᵀ], [0, Aᵀ]]) = [[., F⁻¹Q], [0, Fᵀ]]``.
    """
    dim = model.mean.shape[0]
    zero = jnp.zeros((dim, dim), model.drift.dtype)
    blocks = jnp.block([[-model.drift, model.noise @ model.noise.T], [zero, model.drift.T]])
    found = jax.scipy.linalg.expm(blocks * time)
    transition = found[dim:, dim:].T
    affine = jnp.block([[model.drift, model.offset[:, None]], [jnp.zeros((1, dim + 1), zero.dtype)]])
    shift = jax.scipy.linalg.expm(affine * time)[:dim, dim]
    spread = transition @ found[:dim, dim:]
    return transition, shift, 0.5 * (spread + spread.T)


def _updated(
    model: LinearGaussian, mean: Array, covariance: Array, now: Observations
) -> tuple[Array, Array, Scalar]:
    """Moments after an observation, and its evidence; unchanged and 0 where nothing was seen."""
    observe, error = model.observe, model.error
    value = jnp.where(now.seen, now.value, 0.0)
    innovation = observe @ covariance @ observe.T + error
    gain = jax.scipy.linalg.solve(innovation, observe @ covariance, assume_a="pos").T
    predicted = observe @ mean
    keep = jnp.eye(mean.shape[0], dtype=mean.dtype) - gain @ observe
    after = keep @ covariance @ keep.T + gain @ error @ gain.T
    log_evidence = jax.scipy.stats.multivariate_normal.logpdf(value, predicted, innovation)
    return (
        jnp.where(now.seen, mean + gain @ (value - predicted), mean),
        jnp.where(now.seen, 0.5 * (after + after.T), covariance),
        jnp.where(now.seen, log_evidence, 0.0),
    )
