"""The exact filter of linear models: Kalman's at the observations, Kalman and Bucy's moments between them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.inference.filtering.filtered import Filtered, check_counts
from wfr_flows.inference.filtering.model import LinearGaussian, Observations
from wfr_flows.measures import standard_normal, with_moments
from wfr_flows.training import Method, copied
from wfr_flows.typing import Array, Float, Key, Scalar

_DOUBLINGS = 64


class KalmanState(NamedTuple):
    """Moments and their time.

    Attributes:
      time: of the moments.
      shift: the mean, less the mean of the model: far from 0, that keeps the digits of small changes.
      factor: Cholesky factor of the covariance.
    """

    time: Scalar
    shift: Float[Array, " d"]
    factor: Float[Array, "d d"]


def kalman_filter(model: LinearGaussian, num_particles: int = 1024) -> Method:
    """Kalman's filter with exact moments between observations.

    The gain is ``K = P Hᵀ S⁻¹`` with ``S = H P Hᵀ + R``; the covariance ``(I - KH) P (I - KH)ᵀ + K R Kᵀ``, by
    its Cholesky factor ``L``: an orthogonal matrix turns ``[[R^½, H L], [0, L]]`` into the lower triangle
    ``[[S^½, 0], [K S^½, L']]`` (Kailath, Sayed, Hassibi, 2000, section 12.4). Sharp sensors then leave no
    negative variances, and as all is computed about the mean of the model, states around 1e6 lose no digits
    of the covariance and the evidence.

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

    # The same model for X - m.
    origin = model.mean
    rate = jnp.dot(model.drift, origin, precision="highest") + model.offset
    centred = model._replace(offset=rate, mean=jnp.zeros_like(origin))
    clean = jnp.dot(model.observe, origin, precision="highest")

    def init(key: Key) -> KalmanState:
        del key
        factor = jnp.linalg.cholesky(model.covariance)
        return copied(KalmanState(jnp.asarray(model.start, origin.dtype), centred.mean, factor))

    def step(key: Key, state: KalmanState, now: Observations) -> tuple[KalmanState, Filtered]:
        transition, drifted, spread = moments_after(centred, now.time - state.time)
        shift, factor = transition @ state.shift + drifted, transition @ state.factor
        factor = _factor(factor @ factor.T + spread)
        shift, factor, log_evidence = _updated(centred, shift, factor, now._replace(value=now.value - clean))
        cloud = standard_normal(dim).spread(key, num_particles)
        cloud = with_moments(cloud, jnp.zeros_like(shift), jnp.eye(dim, dtype=shift.dtype))
        apart = shift + jnp.dot(cloud.position, factor.T, precision="highest")
        return KalmanState(now.time, shift, factor), Filtered(
            time=now.time,
            particles=cloud._replace(position=origin + apart),
            log_density=jax.vmap(_log_normal, (None, 0))(factor, cloud.position),
            log_evidence=log_evidence,
            effective_sample_size=jnp.full_like(log_evidence, jnp.inf),
            resampled=jnp.zeros((), bool),
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


def _factor(covariance: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The Cholesky factor, also where the covariance is singular up to rounding."""
    scale = jnp.sqrt(jnp.diagonal(covariance))
    dim, eps = scale.size, jnp.finfo(covariance.dtype).eps
    # As much as rounding may take off the least eigenvalue of a correlation matrix.
    correlation = covariance / (scale[:, None] * scale) + 4 * dim * eps * jnp.eye(dim, dtype=scale.dtype)
    return scale[:, None] * jnp.linalg.cholesky(correlation)


def _log_normal(factor: Float[Array, "d d"], white: Float[Array, " d"]) -> Scalar:
    """``log N(L z; 0, L Lᵀ)``."""
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * jnp.vdot(white, white) - half_log_det - 0.5 * white.size * jnp.log(2 * jnp.pi)


def _updated(
    model: LinearGaussian, mean: Array, factor: Array, now: Observations
) -> tuple[Array, Array, Scalar]:
    """Moments after an observation, and its evidence; unchanged and 0 where nothing was seen."""
    num, observe = model.error.shape[0], model.observe
    value = jnp.where(now.seen, now.value, 0.0)
    sensor, seen = jnp.linalg.cholesky(model.error), jnp.dot(observe, factor, precision="highest")
    joint = jnp.block([[sensor, seen], [jnp.zeros_like(seen.T), factor]])
    turned = jnp.linalg.qr(joint.T, mode="r").T
    turned = turned * jnp.where(jnp.diagonal(turned) < 0, -1.0, 1.0)
    innovation = turned[:num, :num]
    white = jax.scipy.linalg.solve_triangular(innovation, value - observe @ mean, lower=True)
    return (
        jnp.where(now.seen, mean + turned[num:, :num] @ white, mean),
        jnp.where(now.seen, turned[num:, num:], factor),
        jnp.where(now.seen, _log_normal(innovation, white), 0.0),
    )
