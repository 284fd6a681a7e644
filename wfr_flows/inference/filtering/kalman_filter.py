"""The exact filter of linear models: Kalman's at the observations, Kalman and Bucy's moments between them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.inference.filtering.filtered import Filtered, check_counts
from wfr_flows.inference.filtering.model import LinearGaussian, Observations
from wfr_flows.measures import gaussian, standard_normal, with_moments
from wfr_flows.training import Method, copied
from wfr_flows.typing import Array, Float, Key, Scalar

_DOUBLINGS = 64


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

    Raises:
      ValueError: a model whose arrays do not fit, or no more particles than dimensions.
    """
    model.check()
    check_counts(num_particles=num_particles)
    dim = model.mean.shape[0]
    if num_particles <= dim:
        raise ValueError(f"num_particles is {num_particles}; give more than {dim}, the dimension.")

    def init(key: Key) -> KalmanState:
        del key
        start = jnp.asarray(model.start, model.mean.dtype)
        return copied(KalmanState(start, model.mean, model.covariance))

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
    """``F = e^{At}``, ``s = ∫₀ᵗ e^{Au} b du``, ``Q = ∫₀ᵗ e^{Au} L Lᵀ e^{Aᵀu} du``, for stiff ``A`` as well.

    From matrix exponentials for ``h = t / 2^k`` with ``‖A‖ h <= 1``, the one for ``Q`` after Van Loan (1978),
    ``exp(h [[-A, LLᵀ], [0, Aᵀ]]) = [[., F⁻¹Q], [0, Fᵀ]]``, and ``k`` doublings of the time:
    ``Q + F Q Fᵀ``, ``s + F s``, and ``2E + E²`` for ``E = F - I``, which keeps the slow modes' digits.
    """
    dim = model.mean.shape[0]
    eye, zero = jnp.eye(dim, dtype=model.drift.dtype), jnp.zeros((dim, dim), model.drift.dtype)
    norm = jax.lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(model.drift), axis=0)) * time)
    count = jnp.ceil(jnp.log2(jnp.clip(norm, 1.0, 2.0**_DOUBLINGS)))
    step = time * 2.0**-count
    drift, square = model.drift * step, model.noise @ model.noise.T
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(square)))
    size = jnp.where(size > 0, size, 1.0)
    found = jax.scipy.linalg.expm(jnp.block([[-drift, square / size], [zero, drift.T]]))
    spread = size * step * (found[dim:, dim:].T @ found[:dim, dim:])
    mean = jax.scipy.linalg.expm(jnp.block([[drift, eye], [zero, zero]]))[:dim, dim:]

    def doubled(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        excess, shift, spread = now
        move = eye + excess
        return 2 * excess + excess @ excess, shift + move @ shift, spread + move @ spread @ move.T

    def body(now: tuple[Array, Array, Array], index: Scalar) -> tuple[tuple[Array, Array, Array], None]:
        return jax.lax.cond(index < count, doubled, lambda now: now, now), None

    first = drift @ mean, step * (mean @ model.offset), spread
    (excess, shift, spread), _ = jax.lax.scan(body, first, jnp.arange(_DOUBLINGS))
    return eye + excess, shift, 0.5 * (spread + spread.T)


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
