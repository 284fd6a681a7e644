"""Sampling from unnormalised mixtures by variational JKO: two moons, nine Gaussians in 8-D and 13-D.

Fresh samples of N(0, 2.25 I) are pushed through all maps. "energy_distance" is to fresh samples of the
target, "floor" what two sets of those of the same size have, "mass_error" the largest error of the share of a
component's cell among all (of the two moons as well).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import geodesics, gradient_flows, measures, metrics
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


def sampled(law: measures.Distribution, centres: np.ndarray, num_steps: int, options):
    """Errors after half and all of the steps."""
    dim = centres.shape[1]
    transport = gradient_flows.residual(dim, width=options.width, depth=2)
    energy = FreeEnergy(gradient_flows.entropy(), lambda x: -law.log_density(x))
    method = gradient_flows.variational_jko(
        energy,
        transport,
        gradient_flows.log_ratio(dim, width=options.width, depth=2),
        num_iterations=options.iterations,
        batch=options.batch,
        start_steps=1,
        average_decay=0.95,
        map_optimiser=lambda num: geodesics.cosine_muon(num, options.rate),
        ratio_optimiser=lambda num: geodesics.cosine_muon(num, options.rate),
    )
    begin = measures.gaussian(jnp.zeros(dim), 2.25 * jnp.eye(dim))
    keys = jax.random.split(jax.random.key(options.seed), 6)
    state = jax.jit(method.init)((keys[0], begin.spread(keys[1], options.particles)))
    advance = jax.jit(
        lambda key, state: gradient_flows.evolve(method, key, state, jnp.full(num_steps // 2, 0.5))
    )
    fresh, other, far = (
        law.sample(key, size)
        for key, size in zip(keys[2:5], [options.fresh] * 2 + [10 * options.fresh], strict=True)
    )
    distance = jax.jit(metrics.energy_distance)
    floor, truth = float(distance(fresh, other)), shares(far.position, centres)
    position, seconds = begin.sample(keys[5], options.fresh).position, 0.0
    for half in (1, 2):
        started = time.process_time()
        state, info = jax.block_until_ready(advance(jax.random.fold_in(keys[0], half), state))
        seconds += time.process_time() - started
        position, _ = jax.jit(lambda moves, x: gradient_flows.push(energy, transport, moves, x))(
            info.move, position
        )
        found = shares(position, centres)
        yield {
            "steps": half * (num_steps // 2),
            "energy_distance": float(distance(measures.equally_weighted(position), fresh)),
            "floor": floor,
            "mass_error": float(np.abs(found - truth).max()),
            "kl": float(info.energy[-1]),
            "cpu_seconds_with_compilation": seconds,
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, nargs=3, default=[12, 24, 24], help="for each of the targets")
    options.add_argument(
        "--spreads", type=float, nargs=2, default=[2.0, 1.5], help="half the side of the cube of the centres"
    )
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--iterations", type=int, default=200)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--particles", type=int, default=20_000)
    options.add_argument("--fresh", type=int, default=10_000)
    options.add_argument("--rate", type=float, default=2e-2)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    targets = {"moons": moons(), "8-D": nine(8, options.spreads[0]), "13-D": nine(13, options.spreads[1])}
    if options.smoke:
        targets, options.steps = {"moons": moons()}, [2]
        options.iterations, options.batch, options.particles, options.fresh, options.width = (
            2,
            32,
            100,
            100,
            8,
        )
    with report("accuracy/variational_mixtures", options) as emit:
        for (name, target), num_steps in zip(targets.items(), options.steps, strict=True):
            for found in sampled(*target, num_steps, options):
                emit(target=name, seed=options.seed, **rounded(found))


if __name__ == "__main__":
    main()
