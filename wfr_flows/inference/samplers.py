"""Weighted samples of an unnormalised density by the package's flows, all through one interface.

A sampler is ``(key, log_density, start, num_samples) -> Weighted``, with options to be bound by
`functools.partial`. All begin at the law ``start``: a prior, or better `laplace(...).distribution`, and work
in coordinates in which that has mean 0 and covariance I. Those that know the density of what they draw weigh
it by ``p/q``: what they have not learned costs effective sample size instead of bias.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from wfr_flows import geodesics, gradient_flows, potentials
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics import Generator, Learned, cosine_muon
from wfr_flows.gradient_flows import (
    ConvexMap,
    FreeEnergy,
    LogRatio,
    Sample,
    SteinState,
    Whitening,
    carry,
    cosine_adam,
    whiten,
)
from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.gradient_flows.variational_jko import Optimiser
from wfr_flows.inference.importance import Weighted, adapted, at_all, log_ratio, weigh
from wfr_flows.inference.posterior import posterior
from wfr_flows.measures import Distribution, Particles
from wfr_flows.potentials import ConvexPotential
from wfr_flows.training import Method, run
from wfr_flows.typing import Array, Key, PyTree, Scalar

_FRAME_PARTICLES = 4096
_LEAST_SIZE = 10  # times the dimension
_ADAM = cosine_adam(3e-3)


class Sampler(Protocol):
    """``(key, log_density, start, num_samples) -> Weighted``; ``log p`` with all constants, for ``[d]``."""

    def __call__(
        self, key: Key, log_density: LogDensity, start: Distribution, num_samples: int, /
    ) -> Weighted: ...


def sample_by_importance(
    key: Key, log_density: LogDensity, start: Distribution, num_samples: int, /, *, num_rounds: int = 4
) -> Weighted:
    """Importance sampling from a law with the moments of the target, see `adapted`.

    Args:
      num_rounds: 0 draws from ``start`` itself.
    """
    adapt_key, draw_key = jax.random.split(key)

    @jax.jit
    def draw(adapt_key: Key, draw_key: Key) -> Weighted:
        law = adapted(adapt_key, log_density, start, num_samples, num_rounds)
        particles = law.spread(draw_key, num_samples)
        return weigh(particles, log_ratio(log_density, law, particles))

    return draw(adapt_key, draw_key)


def sample_by_icnn_jko(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    potential: ConvexPotential | None = None,
    step_size: float = 1.0,
    num_steps: int = 3,
    num_iterations: int = 150,
    batch: int = 256,
    pool: int = 4096,
    learning_rate: float = 1e-2,
) -> Weighted:
    """The flow of ``KL(·|p)`` by `gradient_flows.icnn_jko` ([JKO]), then fresh samples through its maps.

    Args:
      potential: `potentials.icnn` of the dimension; of width 32 by default.
      step_size, num_steps: of the flow, in units of the whitened start.
      num_iterations, batch, learning_rate: of a step.
      pool: particles that it is learned from.

    Raises:
      NonFiniteError: as `training.run`.
    """
    potential = potentials.icnn(start.dim, width=32, rank=0) if potential is None else potential
    frame_key, init_key, start_key, run_key, draw_key = jax.random.split(key, 5)
    frame = _frame(frame_key, start)
    target = _seen_from(frame, log_density)
    method = gradient_flows.icnn_jko(
        potential,
        gradient_flows.free_energy(target),
        cosine_muon(num_iterations, learning_rate),
        num_iterations=num_iterations,
        batch=batch,
    )
    state = method.init((init_key, _start_sample(start_key, start, frame, pool)))
    maps = _infos(method, run_key, state, step_size, num_steps).map
    return _through(potential, maps, draw_key, start, frame, num_samples, target)


def sample_by_variational_jko(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    potential: ConvexPotential | None = None,
    ratio: LogRatio | None = None,
    step_size: float = 1.0,
    num_steps: int = 3,
    num_iterations: int = 300,
    inner_steps: int = 3,
    batch: int = 1024,
    pool: int = 4096,
    map_optimiser: Optimiser = _ADAM,
    ratio_optimiser: Optimiser = _ADAM,
) -> Weighted:
    """The flow of ``KL(·|p)`` by `gradient_flows.variational_jko` ([VWGF]), its maps gradients of ``ψ``.

    They are learned without their density, which is known nevertheless, as the maps are those of ICNN-JKO.

    Args:
      potential: ``ψ``, `potentials.icnn` of the dimension; of width 32 by default.
      ratio: `gradient_flows.log_ratio` of the dimension; of width 32 by default.
      step_size, num_steps: of the flow, in units of the whitened start.
      num_iterations, inner_steps, batch, map_optimiser, ratio_optimiser: of a step.
      pool: particles that it is learned from.

    Raises:
      NonFiniteError: as `training.run`.
    """
    potential = potentials.icnn(start.dim, width=32, rank=0) if potential is None else potential
    ratio = gradient_flows.log_ratio(start.dim, width=32) if ratio is None else ratio
    frame_key, init_key, start_key, run_key, draw_key = jax.random.split(key, 5)
    frame = _frame(frame_key, start)
    target = _seen_from(frame, log_density)
    method = gradient_flows.variational_jko(
        FreeEnergy(gradient_flows.entropy(), lambda z: -target(z)),
        gradient_flows.gradient_of(potential),
        ratio,
        num_iterations=num_iterations,
        inner_steps=inner_steps,
        batch=batch,
        map_optimiser=map_optimiser,
        ratio_optimiser=ratio_optimiser,
    )
    state = method.init((init_key, _start_sample(start_key, start, frame, pool).particles))
    maps = gradient_flows.convex_maps(_infos(method, run_key, state, step_size, num_steps).move)
    return _through(potential, maps, draw_key, start, frame, num_samples, target)


def sample_by_uot_gen(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    generator: Generator | None = None,
    num_weighted: int = 16384,
    num_rounds: int = 4,
) -> Weighted:
    """A generator learned from weighted samples of ``start`` (see `posterior`); samples of it, weighted anew.

    Args:
      generator: `geodesics.generator` of the dimension; by default of width 16, without matching: the
        whitened samples are near their target as they are.
      num_weighted: samples that it is learned from.
      num_rounds: of `adapted`, before they are drawn; 0 draws from ``start`` itself, such as a prior.

    Raises:
      ValueError: weights of an effective sample size that is less than ten times the dimension, from which
        nothing can be learned.
      NonFiniteError: as `training.run`.
    """
    generator = _near_identity(start.dim) if generator is None else generator
    adapt_key, draw_key, learn_key, sample_key = jax.random.split(key, 4)

    @jax.jit
    def draw(adapt_key: Key, draw_key: Key) -> tuple[Particles, Array]:
        law = adapted(adapt_key, log_density, start, num_weighted, num_rounds)
        particles = law.spread(draw_key, num_weighted)
        return particles, log_ratio(log_density, law, particles)

    @jax.jit
    def weighed(key: Key, learned: Learned) -> Weighted:
        particles = generator.sample(key, learned, num_samples)
        density = generator.log_density(learned, particles.position)
        return weigh(particles, at_all(log_density, particles.position) - density)

    particles, ratio = draw(adapt_key, draw_key)
    size = float(weigh(particles, ratio).particles.effective_sample_size)
    if not size >= _LEAST_SIZE * start.dim:
        raise ValueError(
            f"start's samples have an effective sample size of {size:.1f} of {num_weighted} when weighted;"
            f" give a start nearer to the posterior, as laplace(...).distribution, or a greater num_weighted."
        )
    learned = posterior(learn_key, generator, particles, ratio).learned
    assert learned is not None
    return weighed(sample_key, learned)


def sample_by_svgd(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    optimiser: optax.GradientTransformation | None = None,
    num_steps: int = 500,
    bandwidth: float | None = None,
    minibatch: Callable[[Key], LogDensity] | None = None,
) -> Weighted:
    """Stein variational descent of ``num_samples`` particles, see `gradient_flows.svgd`: without a density.

    Kernels that are wide next to the law make means and covariances right (Liu, Wang, 2018, on kernels that
    contain quadratic functions); those of the median rule, the particles too near to each other in more than
    a few dimensions.

    Args:
      optimiser: as there.
      bandwidth: of the kernel, in units of the whitened start; ``3√d`` by default.
      num_steps: of descent.
      minibatch: ``key -> log_density`` of other rows in every step, such as those of
        ``LogisticRegression.minibatch``; the density itself by default.

    Raises:
      NonFiniteError: as `training.run`.
    """
    frame_key, start_key, run_key = jax.random.split(key, 3)
    frame = _frame(frame_key, start)
    bandwidth = 3 * start.dim**0.5 if bandwidth is None else bandwidth

    def method(key: Key) -> Method:
        seen = log_density if minibatch is None else minibatch(key)
        return gradient_flows.svgd(_seen_from(frame, seen), optimiser, bandwidth=bandwidth)

    def step(key: Key, state: SteinState, batch: Array) -> tuple[SteinState, Scalar]:
        return method(key).step(key, state, batch)

    particles = start.spread(start_key, num_samples)
    whole = gradient_flows.svgd(_seen_from(frame, log_density), optimiser, bandwidth=bandwidth)
    state = whole.init(particles._replace(position=frame(particles.position)))
    moved = run(Method(whole.init, step), run_key, state, lambda _: (), num_steps).particles
    unknown = jnp.full((), jnp.nan, moved.log_weight.dtype)
    return Weighted(_back(frame, moved).normalise(), unknown, unknown)


def _frame(key: Key, start: Distribution) -> Whitening:
    return whiten(start.spread(key, _FRAME_PARTICLES))


def _back(frame: Whitening, particles: Particles) -> Particles:
    return particles._replace(position=frame.centre + particles.position @ frame.factor.T)


def _log_volume(frame: Whitening) -> Scalar:
    return jnp.sum(jnp.log(jnp.diagonal(frame.factor)))


def _seen_from(frame: Whitening, log_density: LogDensity) -> LogDensity:
    """The density of ``z`` where ``x = centre + factor z``."""
    return lambda z: log_density(frame.centre + frame.factor @ z) + _log_volume(frame)


def _start_sample(key: Key, start: Distribution, frame: Whitening, num: int) -> Sample:
    """Samples of the start and their log-density, in the frame."""
    if start.log_density is None:
        raise ValueError("start has no density; give a law that knows its own, as laplace(...).distribution.")
    particles = start.spread(key, num)
    log_density = jax.vmap(start.log_density)(particles.position) + _log_volume(frame)
    return Sample(particles._replace(position=frame(particles.position)), log_density)


def _infos(method: Method, key: Key, state: PyTree, step_size: float, num_steps: int):
    """The stacked infos of all steps of a flow."""
    chunks = []
    run(
        method, key, state, lambda _: jnp.asarray(step_size), num_steps,
        chunk_size=num_steps, on_chunk=chunks.append,
    )  # fmt: skip
    return chunks[0].info


def _through(
    potential: ConvexPotential,
    maps: ConvexMap,
    key: Key,
    start: Distribution,
    frame: Whitening,
    num_samples: int,
    target: LogDensity,
) -> Weighted:
    """Fresh samples of the start through the maps, weighted."""

    @jax.jit
    def draw(key: Key, maps: ConvexMap) -> Weighted:
        moved = carry(potential, maps, _start_sample(key, start, frame, num_samples))
        ratio = at_all(target, moved.particles.position) - moved.log_density
        found = weigh(moved.particles, ratio)
        return found._replace(particles=_back(frame, found.particles))

    return draw(key, maps)


def _near_identity(dim: int) -> Generator:
    return geodesics.generator(
        potentials.resnet(dim, width=16),
        Geometry(2.0),
        matching_steps=0,
        refinement_steps=150,
        batch=2048,
        num_steps=2,
        learning_rate=3e-3,
    )
