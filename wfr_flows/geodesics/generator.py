"""Weighted samples in, weighted samples and densities out: the whole of UOT-gen as three pure functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows import static
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics.density import log_density, log_normaliser
from wfr_flows.geodesics.generate import generate
from wfr_flows.geodesics.matching import matching_method
from wfr_flows.geodesics.uot_gen import Schedule, cosine_adam, uot_gen
from wfr_flows.measures import Particles, moments, resample, standard_normal
from wfr_flows.potentials import InitFn, Potential
from wfr_flows.training import Chunk, Method, run
from wfr_flows.typing import Array, Float, Key, Params, Scalar

_PLAN_TOLERANCE = 1e-3
_NORMALISER_PARTICLES = 32768
_LEAST_VARIANCE = 1e-6


class Learned(NamedTuple):
    """A weighted measure as the reverse flow of ``N(0, I)``, followed by ``x = center + factor·z``.

    Attributes:
      params: of the potential.
      center: ``[d]``, mean of the data.
      factor: ``[d, d]``, Cholesky factor of their covariance.
      log_normaliser: ``log Z`` of its density.
    """

    params: Params
    center: Float[Array, " d"]
    factor: Float[Array, "d d"]
    log_normaliser: Scalar


class LearnFn(Protocol):
    """``(key, source, *, start) -> Learned``: see `generator`."""

    def __call__(self, key: Key, source: Particles, /, *, start: Learned | None = None) -> Learned: ...


class Generator(NamedTuple):
    """What `generator` returns.

    Attributes:
      learn: ``(key, source, *, start=None) -> Learned`` from weighted `Particles` of any mass; ``start``
        is an earlier result whose parameters begin the training.
      sample: ``(key, learned, n) -> Particles``, ``n`` weighted samples of mass 1.
      log_density: ``(learned, x: [n, d]) -> [n]``, normalised.
    """

    learn: LearnFn
    sample: Callable[[Key, Learned, int], Particles]
    log_density: Callable[[Learned, Float[Array, "n d"]], Float[Array, " n"]]


def generator(
    potential: Potential,
    geometry: Geometry,
    *,
    num_pairs: int = 2000,
    matching_steps: int = 2000,
    refinement_steps: int = 300,
    batch: int = 1024,
    num_steps: int = 8,
    action_weight: float | Schedule = 0.002,
    velocity_weight: float | Schedule = 0.05,
    residual_weight: float | Schedule = 0.0,
    average_decay: float = 0.95,
    learning_rate: float = 1e-2,
    on_chunk: Callable[[str, Chunk], None] = lambda phase, chunk: None,
) -> Generator:
    """A generator of weighted samples, learned from weighted samples ([WFR] algorithms 1 and 2).

    The data are brought to mean 0 and covariance I. Training begins with `matching` on the certified plan
    between them and as many samples of ``N(0, I)``, and goes on with `uot_gen` on fresh batches of both ends.

    Args:
      potential: of the dimension of the data.
      geometry: spherical; ``alpha`` is in units of the whitened data.
      num_pairs: particles of either end for the plan, the heaviest cost beside the steps.
      matching_steps, refinement_steps: of either phase; 0 leaves one out.
      batch: particles of either end in a refinement step.
      num_steps: Runge-Kutta steps while training; twice as many elsewhere.
      action_weight, velocity_weight, residual_weight, average_decay: as in `uot_gen`.
      learning_rate: of the refinement.
      on_chunk: called on the host as in `training.run`, after the name of the phase, matching or refinement.

    Returns:
      A `Generator`. ``learn`` compiles and runs two loops; ``sample`` and ``log_density`` are to be jitted.
    """
    refinement = partial(
        uot_gen,
        potential,
        geometry,
        optimiser=cosine_adam(max(refinement_steps, 1), learning_rate),
        action_weight=action_weight,
        velocity_weight=velocity_weight,
        residual_weight=residual_weight,
        num_steps=num_steps,
        average_decay=average_decay,
    )
    tell = (partial(on_chunk, phase) for phase in ("matching", "refinement"))
    phases = (
        partial(_matched, potential, geometry, num_pairs, matching_steps, next(tell)),
        partial(_refined, refinement, batch, refinement_steps, next(tell)),
    )
    # Compiled once for all that is learned.
    normaliser = jax.jit(partial(log_normaliser, potential, geometry, num_steps=2 * num_steps))
    learn = partial(_learn, potential.init, phases, normaliser)
    sample = partial(_sample, potential, geometry, 2 * num_steps)
    density = partial(_log_density, potential, geometry, 2 * num_steps)
    return Generator(learn, sample, density)


def _learn(
    init: InitFn,
    phases: Sequence[Callable[[Key, Params, Particles], Params]],
    normaliser: Callable[[Params, Particles], Scalar],
    key: Key,
    source: Particles,
    /,
    *,
    start: Learned | None = None,
) -> Learned:
    init_key, normaliser_key, *keys = jax.random.split(key, 2 + len(phases))
    center, factor = whitening(source)
    white = source._replace(position=_whiten(source.position, center, factor)).normalise()
    params = init(init_key) if start is None else start.params
    for phase_key, phase in zip(keys, phases, strict=True):
        params = phase(phase_key, params, white)
    many = standard_normal(center.size).sample(normaliser_key, _NORMALISER_PARTICLES)
    return Learned(params, center, factor, normaliser(params, many))


def _sample(
    potential: Potential, geometry: Geometry, num_steps: int, key: Key, learned: Learned, n: int
) -> Particles:
    noise = standard_normal(learned.center.size).sample(key, n)
    white = generate(potential, geometry, learned.params, noise, num_steps=num_steps)
    return white._replace(position=learned.center + white.position @ learned.factor.T)


def _log_density(
    potential: Potential, geometry: Geometry, num_steps: int, learned: Learned, x: Float[Array, "n d"]
) -> Float[Array, " n"]:
    normal = standard_normal(learned.center.size)
    assert normal.log_density is not None
    white = log_density(
        potential,
        geometry,
        learned.params,
        _whiten(x, learned.center, learned.factor),
        normal.log_density,
        log_normaliser=learned.log_normaliser,
        num_steps=num_steps,
    )
    return white - jnp.sum(jnp.log(jnp.diagonal(learned.factor)))


def _matched(
    potential: Potential,
    geometry: Geometry,
    num_pairs: int,
    num_steps: int,
    on_chunk: Callable[[Chunk], None],
    key: Key,
    params: Params,
    white: Particles,
) -> Params:
    """Parameters matched to the certified plan between the data, or as many draws, and the normal law."""
    if num_steps == 0:
        return params
    source_key, target_key, train_key = jax.random.split(key, 3)
    few = white if white.log_weight.size <= num_pairs else resample(source_key, white, num_pairs)
    target = standard_normal(white.position.shape[1]).sample(target_key, few.log_weight.size)
    diracs = _plan(few, target, geometry.alpha)
    method = matching_method(potential, geometry, diracs, cosine_adam(num_steps))
    start = method.init(params)
    return run(method, train_key, start, lambda _: (), num_steps, on_chunk=on_chunk).params


def _refined(
    refinement: Callable[..., Method],
    batch: int,
    num_steps: int,
    on_chunk: Callable[[Chunk], None],
    key: Key,
    params: Params,
    white: Particles,
) -> Params:
    """Averaged parameters after training on fresh batches of both ends."""
    if num_steps == 0:
        return params
    normal = standard_normal(white.position.shape[1])
    method = refinement(target_log_density=normal.log_density)

    def draw(key: Key) -> tuple[Particles, Particles]:
        source_key, target_key = jax.random.split(key)
        return resample(source_key, white, batch), normal.sample(target_key, batch)

    return run(method, key, method.init(params), draw, num_steps, on_chunk=on_chunk).average


def whitening(measure: Particles) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Mean and Cholesky factor of the covariance of a weighted measure.

    Directions of hardly any variance, next to the widest, get a little.
    """
    center, covariance = moments(measure)
    widest = jnp.max(jnp.diagonal(covariance))
    least = _LEAST_VARIANCE * jnp.where(widest > 0, widest, 1.0)
    return center, jnp.linalg.cholesky(covariance + least * jnp.eye(center.size, dtype=center.dtype))


def _whiten(x: Float[Array, "n d"], center: Float[Array, " d"], factor: Float[Array, "d d"]) -> Array:
    return jax.scipy.linalg.solve_triangular(factor, (x - center).T, lower=True).T


@jax.jit
def _plan(source: Particles, target: Particles, alpha: Scalar) -> static.Diracs:
    result = static.spherical_wfr(source, target, alpha, tolerance=_PLAN_TOLERANCE)
    return static.semi_coupling(result, source, target, alpha)
