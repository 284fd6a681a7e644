"""What benchmarks of ICNN-JKO share: a flow towards a law that is data, compiled once for many such laws."""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows import gradient_flows, measures, metrics
from wfr_flows.gradient_flows import Annealed, ConvexMap, JKOInfo, Sample
from wfr_flows.measures import Distribution, Particles
from wfr_flows.potentials import ConvexPotential

Law = Callable[..., Distribution]
"""``data -> Distribution``."""


class Flow(NamedTuple):
    """Compiled functions.

    Attributes:
      start: ``key -> Annealed``.
      step: ``(key, state, step size, *target data) -> (state, info)``.
      push: ``(key, maps) -> Sample`` of the flow at its end.
      error: ``(key, maps, *true data) -> `` symmetric KL to the true law.
    """

    start: Callable[[jax.Array], Annealed]
    step: Callable[..., tuple[Annealed, JKOInfo]]
    push: Callable[[jax.Array, ConvexMap], Sample]
    error: Callable[..., jax.Array]


class Learned(NamedTuple):
    """Stacked maps, CPU seconds of every step, energies after it."""

    maps: ConvexMap
    seconds: list[float]
    energy: list[float]


def flow(
    options: argparse.Namespace, potential: ConvexPotential, variance: float, target: Law, true: Law
) -> Flow:
    """The flow of ``KL(·|target)`` from ``N(0, variance I)``, the target at ``options.temperature``."""
    dim = potential.init(jax.random.key(0))["shift"].size
    source = measures.gaussian(jnp.zeros(dim), variance * jnp.eye(dim))

    def sample(particles: Particles) -> Sample:
        return Sample(particles, jax.vmap(source.log_density)(particles.position))

    def towards(log_density):
        return gradient_flows.icnn_jko(
            potential,
            gradient_flows.free_energy(log_density),
            options.optimiser(options.iterations, options.learning_rate),
            num_iterations=options.iterations,
            batch=options.batch,
        )

    def method(*data):
        return gradient_flows.annealed(towards, target(*data).log_density, options.temperature)

    def start(key, *data):
        keys = jax.random.split(key)
        pool = source.spread(keys[0], options.pool)
        pool = measures.with_moments(pool, jnp.zeros(dim), variance * jnp.eye(dim))
        return method(*data).init((keys[1], sample(pool)))

    def step(key, state, step_size, *data):
        return method(*data).step(key, state, step_size)

    def push(key, maps):
        return gradient_flows.carry(potential, maps, sample(source.sample(key, options.evaluation)))

    def error(key, maps, *data):
        keys, law = jax.random.split(key), true(*data)

        def log_ratio(x):
            at = gradient_flows.flow_log_density(potential, maps, source.log_density, x)
            return at - jax.vmap(law.log_density)(x)

        learned = push(keys[0], maps).particles
        return metrics.sampled_symmetric_kl(learned, law.sample(keys[1], options.evaluation), log_ratio)

    return Flow(*map(jax.jit, (start, step, push, error)))


def learn(compiled: Flow, key: jax.Array, data: tuple[Any, ...], step_sizes: list[float]) -> Learned:
    """All steps, one call each so that each has its time; compilation does not count."""
    state = compiled.start(key, *data)
    jax.block_until_ready(compiled.step(key, state, step_sizes[0], *data))
    infos, seconds = [], []
    for size, step_key in zip(step_sizes, jax.random.split(key, len(step_sizes)), strict=True):
        since = time.process_time()
        state, info = jax.block_until_ready(compiled.step(step_key, state, size, *data))
        seconds.append(time.process_time() - since)
        infos.append(info)
    maps = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(info.map for info in infos))
    return Learned(maps, seconds, [float(info.energy) for info in infos])
