"""Sampling from unnormalised mixtures by variational JKO: two moons, nine Gaussians in 8-D and 13-D.

Fresh samples of N(0, 2.25 I) are pushed through all maps. "energy_distance" is to fresh samples of the
target, "floor" what two sets of those of the same size have, "mass_error" the largest error of the share of a
component's cell among all (of the two moons as well).
"""

import time
from functools import partial

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


def sampled(law: measures.Distribution, centres: np.ndarray, options):
    """Errors after a first phase and after one at a quarter of the rates, which takes the noise out."""
    dim = centres.shape[1]
    transport = gradient_flows.residual(dim, width=options.width, depth=3)
    energy = FreeEnergy(gradient_flows.entropy(), lambda x: -law.log_density(x))
    begin = measures.gaussian(jnp.zeros(dim), 2.25 * jnp.eye(dim))
    keys = jax.random.split(jax.random.key(options.seed), 6)
    sizes = [options.fresh, options.fresh, 10 * options.fresh]
    fresh, other, far = (law.sample(key, size) for key, size in zip(keys[2:5], sizes, strict=True))
    distance = jax.jit(metrics.energy_distance)
    floor, truth = float(distance(fresh, other)), shares(far.position, centres)
    position, state, seconds, done = begin.sample(keys[5], options.fresh).position, None, 0.0, 0
    for phase, num_steps in enumerate(options.steps):
        method = gradient_flows.variational_jko(
            energy,
            transport,
            gradient_flows.log_ratio(dim, width=options.width, depth=3),
            num_iterations=options.iterations,
            inner_steps=5,
            batch=options.batch,
            start_steps=1,
            average_decay=0.98,
            map_optimiser=partial(training.cosine_adam, learning_rate=3e-3 / 4**phase),
            ratio_optimiser=partial(training.cosine_adam, learning_rate=5e-3 / 2**phase),
        )
        if state is None:
            state = jax.jit(method.init)((keys[0], begin.spread(keys[1], options.particles)))
        advance = jax.jit(
            lambda key, state, method=method, num=num_steps: gradient_flows.evolve(
                method, key, state, jnp.full(num, options.step_size)
            )
        )
        started = time.process_time()
        state, info = jax.block_until_ready(advance(jax.random.fold_in(keys[0], phase), state))
        seconds, done = seconds + time.process_time() - started, done + num_steps
        carry = jax.jit(lambda moves, x: gradient_flows.push(energy, transport, moves, x)[0])
        position = carry(info.move, position)
        gap = float(distance(measures.equally_weighted(position), fresh))
        yield {
            "steps": done,
            "energy_distance": gap,
            "floor": floor,
            "mass_error": float(np.abs(shares(position, centres) - truth).max()),
            "kl": float(info.energy[-1]),
            "cpu_seconds_with_compilation": seconds,
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--targets", nargs="+", default=["moons", "8-D", "13-D"])
    options.add_argument("--steps", type=int, nargs=2, default=[10, 6], help="of either phase")
    options.add_argument("--step-size", type=float, default=0.5)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--iterations", type=int, default=400)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--particles", type=int, default=20_000)
    options.add_argument("--fresh", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    if options.smoke:
        options.targets, options.steps = ["moons"], [1, 1]
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
                emit(target=name, seed=options.seed, step_size=options.step_size, **rounded(found))


if __name__ == "__main__":
    main()
