"""Importance sampling: weights towards a posterior, the evidence, and Gaussians near it to draw from."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.inference.pareto import pareto_smoothed
from wfr_flows.measures import Distribution, Particles, gaussian, mixture, moments
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Key, Scalar

_NEWTON_STEPS = 4
_BATCH = 256
_EFFECTIVE = 0.25
_WIDE_SHARE, _WIDE_VARIANCE = 0.1, 4.0
_HALVINGS = 20


class Weighted(NamedTuple):
    """Weighted samples of an unnormalised law, and what they say of its mass.

    Attributes:
      particles: of mass 1.
      log_evidence: logarithm of the mass of the law; NaN from methods that do not know their own density.
      standard_error: of the latter, by the delta method.
      tail_shape: of the weights before they were smoothed, see `pareto_smoothed`; NaN where they were not.
    """

    particles: Particles
    log_evidence: Scalar
    standard_error: Scalar
    tail_shape: ArrayLike = math.nan


@partial(jax.jit, inline=True)
def reweighted(measure: Particles, log_ratio: Float[Array, " n"]) -> tuple[Particles, Scalar]:
    """Weights times a ratio, such as a likelihood, at mass 1; and ``log Σ w exp(log_ratio)``, the evidence.

    A ratio of zero at every particle leaves the weights, and the evidence says ``-inf``. One that is NaN at
    any particle makes all weights and the evidence NaN.
    """
    log_weight = measure.log_weight + log_ratio
    log_evidence = jax.nn.logsumexp(log_weight)
    possible = log_evidence != -jnp.inf
    updated = jnp.where(possible, log_weight - jnp.where(possible, log_evidence, 0.0), measure.log_weight)
    return measure._replace(log_weight=updated), log_evidence


@partial(jax.jit, inline=True)
def weigh(particles: Particles, log_ratio: Float[Array, " n"]) -> Weighted:
    """Samples of ``q`` with the weights ``p/q``, and ``log ∫p = log Σ w p/q``.

    Args:
      particles: of ``q``, weighted, of mass 1.
      log_ratio: ``log p - log q`` at them; ``p`` with all constants. Where it is ``-inf`` at every particle
        the weights stay, and the evidence says ``-inf``, with an error of ``inf``.
    """
    updated, log_evidence = reweighted(particles, log_ratio)
    error = jnp.sqrt(jnp.sum((updated.weight - particles.weight) ** 2))
    return Weighted(updated, log_evidence, jnp.where(log_evidence == -jnp.inf, jnp.inf, error))


def smoothed(found: Weighted) -> Weighted:
    """The same with the weights of `pareto_smoothed`; the evidence is that of the weights as they were."""
    particles, shape = pareto_smoothed(found.particles)
    return found._replace(particles=particles, tail_shape=shape)


def usable(found: Weighted) -> Weighted:
    """The same, of concrete samples, unless no weight is left.

    Raises:
      ValueError: the evidence is ``-inf`` or NaN.
    """
    if not jnp.isfinite(found.log_evidence):
        raise ValueError(
            "log_density is -inf at every sample, or NaN at one; give a start nearer to where it has mass."
        )
    return found


class Laplace(NamedTuple):
    """The Gaussian of a density's maximum and curvature there.

    Attributes:
      mode: ``[d]``.
      covariance: ``[d, d]``, inverse of ``-∇² log p``.
      log_evidence: ``log p(mode) + ½ log det 2πΣ``; exact for Gaussians.
      converged: the gradient is small and the curvature positive definite; otherwise do not use it.
    """

    mode: Float[Array, " d"]
    covariance: Float[Array, "d d"]
    log_evidence: Scalar
    converged: Bool[Array, ""]

    @property
    def distribution(self) -> Distribution:
        """``N(mode, Σ)``."""
        return gaussian(self.mode, self.covariance)


def laplace(log_density: LogDensity, start: Float[Array, " d"], *, max_steps: int = 500) -> Laplace:
    """Laplace's approximation: BFGS to the maximum, then Newton's method on the gradient.

    Both work in coordinates in which the curvature of the start, then that of what BFGS has found, is 1: the
    units of the parameters, such as those of features of a regression, make no difference.

    Args:
      log_density: ``log p``, smooth.
      start: ``[d]``, where the search begins.
      max_steps: of BFGS.
    """
    first = _frame(log_density, start)
    search = optimistix.BFGS(rtol=1e-5, atol=1e-5)
    found = optimistix.minimise(
        lambda z, _: -log_density(start + first.matrix @ z),
        search,
        jnp.zeros_like(start),
        throw=False,
        max_steps=max_steps,
    ).value
    centre = start + first.matrix @ found
    frame = _frame(log_density, centre)

    def seen(z: Float[Array, " d"]) -> Scalar:
        return log_density(centre + frame.matrix @ z)

    slope, curvature = jax.grad(seen), jax.hessian(seen)

    def newton(_: Array, z: Float[Array, " d"]) -> Float[Array, " d"]:
        better = z - jnp.linalg.solve(curvature(z), slope(z))
        return jnp.where(jnp.linalg.norm(slope(better)) < jnp.linalg.norm(slope(z)), better, z)

    mode = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, jnp.zeros_like(start))
    value, vectors = jnp.linalg.eigh(-curvature(mode))
    variance = 1 / value
    axes = frame.matrix @ vectors
    # In standard deviations: how far Newton's method would still go.
    left = jnp.sqrt(jnp.sum((vectors.T @ slope(mode)) ** 2 * variance))
    log_evidence = seen(mode) + 0.5 * jnp.sum(jnp.log(2 * jnp.pi * variance)) + frame.log_det
    converged = jnp.all(value > 0) & (left < 1e-2) & jnp.isfinite(log_evidence)
    return Laplace(centre + frame.matrix @ mode, (axes * variance) @ axes.T, log_evidence, converged)


class _Frame(NamedTuple):
    """Coordinates ``x = centre + matrix z``, and the logarithm of the determinant of the matrix."""

    matrix: Float[Array, "d d"]
    log_det: Scalar


def _frame(log_density: LogDensity, x: Float[Array, " d"]) -> _Frame:
    """Coordinates in which the curvature of a density at a point is 1 or -1."""
    curvature = -jax.lax.stop_gradient(jax.hessian(log_density)(x))
    size = jnp.abs(jnp.diagonal(curvature))
    usable = jnp.isfinite(size) & (size > 0)
    unit = jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, size, 1.0)), 1.0)
    scaled = unit[:, None] * curvature * unit
    scaled = jnp.where(jnp.all(jnp.isfinite(scaled)), scaled, jnp.eye(x.size, dtype=x.dtype))
    value, vectors = jnp.linalg.eigh(scaled)
    # No direction is longer than rounding can tell.
    least = x.size * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(value))
    length = 1 / jnp.sqrt(jnp.maximum(jnp.abs(value), least))
    return _Frame(unit[:, None] * vectors * length, jnp.sum(jnp.log(unit)) + jnp.sum(jnp.log(length)))


def adapted(
    key: Key, log_density: LogDensity, start: Distribution, num_samples: int, num_rounds: int = 4
) -> Distribution:
    """A law with the mean ``m`` and covariance ``C`` of ``p``, by importance sampling in rounds.

    It is ``.9 N(m, C) + .1 N(m, 4C)``: the wider part bounds the weights where ``p`` falls off slower than a
    Gaussian. A round takes the moments of ``q^(1-b) p^b``, with the greatest ``b <= 1`` that leaves a quarter
    of its samples effective: a start far off is drawn near in steps.

    Args:
      log_density: ``log p``, up to a constant.
      start: a law with a density, such as `laplace` gives.
      num_samples: in each round, many times the dimension.
      num_rounds: how often; 0 returns ``start``.
    """
    if num_rounds == 0:
        return start

    def nearer(law: Distribution, round_key: Key) -> tuple[Array, Array]:
        particles = law.spread(round_key, num_samples)
        ratio = log_ratio(log_density, law, particles)
        return moments(_tempered(particles, ratio, _EFFECTIVE * num_samples))

    # All rounds but the first begin with a law of one kind, and are one program.
    keys = jax.random.split(key, num_rounds)
    found = nearer(start, keys[0])
    found, _ = jax.lax.scan(lambda now, round_key: (nearer(_wide(*now), round_key), None), found, keys[1:])
    return _wide(*found)


def _wide(mean: Float[Array, " d"], covariance: Float[Array, "d d"]) -> Distribution:
    share = jnp.array([1 - _WIDE_SHARE, _WIDE_SHARE])
    return mixture(share, jnp.stack([mean, mean]), jnp.stack([covariance, _WIDE_VARIANCE * covariance]))


def _tempered(particles: Particles, ratio: Float[Array, " n"], size: float) -> Particles:
    """Weights to the greatest power at most 1 with at least this effective sample size."""

    def weighted(power: Scalar) -> Particles:
        return Particles(particles.position, particles.log_weight + power * ratio)

    def halve(_: Array, bracket: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = weighted(middle).effective_sample_size >= size
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.ones((), ratio.dtype)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (0 * one, one))
    return weighted(jnp.where(weighted(one).effective_sample_size >= size, one, low))


def log_ratio(log_density: LogDensity, law: Distribution, particles: Particles) -> Float[Array, " n"]:
    """``log p - log q`` at samples of ``q``, which knows its density."""
    assert law.log_density is not None
    return at_all(log_density, particles.position) - jax.vmap(law.log_density)(particles.position)


def at_all(log_density: LogDensity, position: Float[Array, "n d"]) -> Float[Array, " n"]:
    """``log p`` of every point, some at a time: a likelihood may hold a number for every row of its data."""
    return jax.lax.map(log_density, position, batch_size=_BATCH)
