"""Weighted samples of an unnormalised density by the package's flows, all through one interface.

A sampler is ``(key, log_density, start, num_samples) -> Weighted``, with options to be bound by
`functools.partial`. All begin at the law ``start``, such as the distribution of `nested_laplace`, of
`laplace`, or, where the data say little, the prior, and work in coordinates in which that has mean 0 and
covariance I. Those that know the density of what they draw weigh it by ``p/q``: what they have not learned
costs effective sample size instead of bias. The greatest weights are Pareto-smoothed (`pareto_smoothed`).
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from wfr_flows import geodesics, gradient_flows, potentials
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics import Generator, Learned
from wfr_flows.gradient_flows import SteinState
from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.inference.frame import check_target, frame_of
from wfr_flows.inference.importance import Weighted, adapted, at_all, log_ratio, smoothed, usable, weigh
from wfr_flows.inference.posterior import posterior
from wfr_flows.measures import Distribution, Particles
from wfr_flows.training import Method, run
from wfr_flows.typing import Array, Key, Scalar

_LEAST_SIZE = 10  # times the dimension


class Sampler(Protocol):
    """``(key, log_density, start, num_samples) -> Weighted``; ``log p`` with all constants, for ``[d]``."""

    def __call__(
        self, key: Key, log_density: LogDensity, start: Distribution, num_samples: int, /
    ) -> Weighted: ...


def sample_by_importance(
    key: Key, log_density: LogDensity, start: Distribution, num_samples: int, /, *, num_rounds: int = 0
) -> Weighted:
    """Importance sampling from ``start``.

    Args:
      num_rounds: of `adapted`, before samples are drawn from what that gives.
    """
    check_target(log_density, start, num_samples)
    adapt_key, draw_key = jax.random.split(key)

    @jax.jit
    def draw(adapt_key: Key, draw_key: Key) -> Weighted:
        return smoothed(weigh(*_drawn(adapt_key, draw_key, log_density, start, num_samples, num_rounds)))

    return usable(draw(adapt_key, draw_key))


def sample_by_uot_gen(
    key: Key,
    log_density: LogDensity,
    start: Distribution,
    num_samples: int,
    /,
    *,
    generator: Generator | None = None,
    num_weighted: int = 16384,
    num_rounds: int = 0,
) -> Weighted:
    """A generator learned from weighted samples of ``start`` (see `posterior`); samples of it, weighted anew.

    Args:
      generator: `geodesics.generator` of the dimension; by default of width 16, without matching: the
        whitened samples are near their target as they are.
      num_weighted: samples that it is learned from.
      num_rounds: of `adapted`, before they are drawn.

    Raises:
      ValueError: weights of an effective sample size that is less than ten times the dimension, from which
        nothing can be learned.
      NonFiniteError: as `training.run`.
    """
    check_target(log_density, start, num_samples)
    generator = _near_identity(start.dim) if generator is None else generator
    adapt_key, draw_key, learn_key, sample_key = jax.random.split(key, 4)

    @jax.jit
    def draw(adapt_key: Key, draw_key: Key) -> tuple[Particles, Array]:
        return _drawn(adapt_key, draw_key, log_density, start, num_weighted, num_rounds)

    @jax.jit
    def weighed(key: Key, learned: Learned) -> Weighted:
        particles = generator.sample(key, learned, num_samples)
        density = generator.log_density(learned, particles.position)
        return smoothed(weigh(particles, at_all(log_density, particles.position) - density))

    particles, ratio = draw(adapt_key, draw_key)
    size = float(weigh(particles, ratio).particles.effective_sample_size)
    if not size >= _LEAST_SIZE * start.dim:
        raise ValueError(
            f"start's samples have an effective sample size of {size:.1f} of {num_weighted} when weighted;"
            f" give a start nearer to the posterior, as nested_laplace(...).distribution, or a"
            " greater num_weighted."
        )
    learned = posterior(learn_key, generator, particles, ratio).learned
    assert learned is not None
    return usable(weighed(sample_key, learned))


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
    check_target(log_density, start, num_samples)
    frame_key, start_key, run_key = jax.random.split(key, 3)
    frame = frame_of(frame_key, start)
    bandwidth = 3 * start.dim**0.5 if bandwidth is None else bandwidth

    def method(key: Key) -> Method:
        seen = log_density if minibatch is None else minibatch(key)
        return gradient_flows.svgd(frame.log_density_of(seen), optimiser, bandwidth=bandwidth)

    def step(key: Key, state: SteinState, batch: Array) -> tuple[SteinState, Scalar]:
        return method(key).step(key, state, batch)

    particles = start.spread(start_key, num_samples)
    whole = gradient_flows.svgd(frame.log_density_of(log_density), optimiser, bandwidth=bandwidth)
    state = whole.init(particles._replace(position=frame(particles.position)))
    moved = run(Method(whole.init, step), run_key, state, lambda _: (), num_steps).particles
    unknown = jnp.full((), jnp.nan, moved.log_weight.dtype)
    moved = moved._replace(position=frame.back(moved.position)).normalise()
    return Weighted(moved, unknown, unknown)


def _drawn(
    adapt_key: Key, draw_key: Key, log_density: LogDensity, start: Distribution, num: int, num_rounds: int
) -> tuple[Particles, Array]:
    """Samples of the adapted start, and ``log p/q`` at them."""
    law = adapted(adapt_key, log_density, start, num, num_rounds)
    particles = law.spread(draw_key, num)
    return particles, log_ratio(log_density, law, particles)


def _near_identity(dim: int) -> Generator:
    return geodesics.generator(
        potentials.resnet(dim, width=16),
        Geometry(2.0),
        matching_steps=0,
        refinement_steps=600,
        batch=512,
        num_steps=2,
        learning_rate=2e-2,
    )
