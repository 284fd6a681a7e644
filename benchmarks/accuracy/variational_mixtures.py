"""Sampling from unnormalised mixtures by variational JKO: two moons, nine Gaussians in 8-D and 13-D.

Fresh samples of N(0, 2.25 I) are pushed through all maps. Small steps carry the particles into the modes;
large ones, whose ratios begin at that of the target to the reference, then settle the shares.
"energy_distance" is to fresh samples of the target, "floor" what two sets of those of the same size have,
both means over five pairs of sets; "mass_error" the largest error of the share of a component's cell among
all (of the two moons as well).
"""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, metrics, training
from wfr_flows.gradient_flows import FreeEnergy


def moons() -> tuple[measures.Distribution, np.ndarray]:
    """Eight Gaussians along each of two interleaved half circles of radius 2."""
    angle = np.linspace(0, np.pi, 8)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centres = 2 * np.concatenate([upper, np.array([1.0, 0.5]) - upper]) + np.array([-1.0, -0.2])
    return measures.mixture(jnp.ones(16), centres, jnp.tile(0.09 * jnp.eye(2), (16, 1, 1))), centres


def nine(dim: int, spread: float) -> tuple[measures.Distribution, np.ndarray]:
    """Nine Gaussians of unit covariance, their centres uniform in a cube."""
    centres = np.random.RandomState(0).uniform(-spread, spread, (9, dim))
    return measures.mixture(jnp.ones(9), centres, jnp.tile(jnp.eye(dim), (9, 1, 1))), centres


def shares(position: jax.Array, centres: np.ndarray) -> np.ndarray:
    """Of the cells of the centres."""
    nearest = jnp.argmin(jnp.sum((position[:, None] - centres) ** 2, axis=-1), axis=1)
    return np.bincount(np.asarray(nearest), minlength=len(centres)) / len(position)


SETS = 5


class Phase(NamedTuple):
    """Steps of one size; rates of map and ratio, decay of the map's average; whether ratios have a base."""

    steps: int
    step_size: float
    map_rate: float
    ratio_rate: float
    average_decay: float
    based: bool


PHASES = (
    Phase(10, 0.5, 3e-3, 5e-3, 0.98, based=False),
    Phase(4, 10.0, 1.5e-3, 2.5e-3, 0.99, based=True),
    Phase(4, 10.0, 4e-4, 1e-3, 0.995, based=True),
)


class Judge(NamedTuple):
    """Fresh samples of the target in several sets, their distance from others like them, the true shares."""

    fresh: list[measures.Particles]
    floor: float
    truth: np.ndarray

    def distance(self, position: jax.Array) -> float:
        """Mean energy distance of as many sets, which stand one after the other."""
        sets = map(measures.equally_weighted, jnp.split(position, len(self.fresh)))
        pairs = zip(sets, self.fresh, strict=True)
        return float(np.mean([_distance(some, fresh) for some, fresh in pairs]))


_distance = jax.jit(metrics.energy_distance)


def judge(law: measures.Distribution, centres: np.ndarray, key: jax.Array, size: int) -> Judge:
    first, second = jax.random.split(key)
    fresh = [law.sample(k, size) for k in jax.random.split(first, SETS)]
    other = law.sample(second, SETS * size)
    found = Judge(fresh, 0.0, shares(other.position, centres))
    return found._replace(floor=found.distance(other.position))


def sampled(law: measures.Distribution, centres: np.ndarray, options):
    """Errors after every phase."""
    dim = centres.shape[1]
    transport = gradient_flows.residual(dim, width=options.width, depth=3)
    begin = measures.gaussian(jnp.zeros(dim), 2.25 * jnp.eye(dim))
    keys = jax.random.split(jax.random.key(options.seed), 4)
    against = judge(law, centres, keys[2], options.fresh)
    particles = begin.spread(keys[1], options.particles)
    position = begin.sample(keys[3], SETS * options.fresh).position
    seconds, done = 0.0, 0
    for index, phase in enumerate(options.phases):
        internal = gradient_flows.entropy(base=law.log_density if phase.based else None)
        energy = FreeEnergy(internal, lambda x: -law.log_density(x))
        method = gradient_flows.variational_jko(
            energy,
            transport,
            gradient_flows.log_ratio(dim, width=options.width, depth=3),
            num_iterations=options.iterations,
            inner_steps=3,
            batch=options.batch,
            start_steps=options.iterations,
            average_decay=phase.average_decay,
            map_optimiser=partial(training.cosine_adam, learning_rate=phase.map_rate),
            ratio_optimiser=partial(training.cosine_adam, learning_rate=phase.ratio_rate),
        )
        advance = jax.jit(
            lambda key, particles, method=method, phase=phase: gradient_flows.evolve(
                method, key, method.init((key, particles)), jnp.full(phase.steps, phase.step_size)
            )
        )
        started = time.process_time()
        key = jax.random.fold_in(keys[0], index)
        state, info = jax.block_until_ready(advance(key, particles))
        seconds, done = seconds + time.process_time() - started, done + phase.steps
        particles = state.particles
        carry = jax.jit(lambda moves, x, energy=energy: gradient_flows.push(energy, transport, moves, x)[0])
        position = carry(info.move, position)
        yield {
            "steps": done,
            "energy_distance": against.distance(position),
            "floor": against.floor,
            "mass_error": float(np.abs(shares(position, centres) - against.truth).max()),
            "kl": float(info.energy[-1]),
            "cpu_seconds_with_compilation": seconds,
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--targets", nargs="+", default=["moons", "8-D", "13-D"])
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--iterations", type=int, default=300)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--particles", type=int, default=20_000)
    options.add_argument("--fresh", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    options.phases = PHASES
    if options.smoke:
        options.targets = ["moons"]
        options.phases = [phase._replace(steps=1) for phase in PHASES[:2]]
        options.iterations, options.batch, options.particles, options.fresh, options.width = (
            2,
            32,
            100,
            100,
            8,
        )
    targets = {"moons": moons, "8-D": lambda: nine(8, 2.0), "13-D": lambda: nine(13, 1.5)}
    with report("accuracy/variational_mixtures", options) as emit:
        for name in options.targets:
            for found in sampled(*targets[name](), options):
                emit(target=name, seed=options.seed, **rounded(found))


if __name__ == "__main__":
    main()
