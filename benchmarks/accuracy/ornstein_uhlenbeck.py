"""ICNN-JKO on the published Ornstein-Uhlenbeck targets: 15 random Gaussians in every dimension.

From N(0, I) in steps of .05 to t = .9. ``symmetric_kl`` to the true law at t = .5 and .9, over 8192 samples
of both; ``floor`` is that of the exact JKO steps, which no solver of these steps can pass. ``published`` are the
means over 15 targets of ICNN_jko in https://github.com/PetrMokrov/Large-Scale-Wasserstein-Gradient-Flows
(results/, commit 4947b00). Seconds are CPU time; ``step_seconds`` those of the second and the last step.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import targets
from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, metrics, potentials
from wfr_flows.gradient_flows import Sample

PUBLISHED = {
    1: (0.0011, 0.0007),
    2: (0.0035, 0.0038),
    4: (0.0086, 0.0075),
    6: (0.0185, 0.0133),
    8: (0.0189, 0.0136),
    10: (0.0180, 0.0144),
    12: (0.0265, 0.0182),
}
STEP_SIZE = 0.05
TIMES = (0.5, 0.9)


def flow(options: argparse.Namespace, dim: int):
    """Compiled: the start, a step, the symmetric KL of a flow to the true law."""
    potential = potentials.icnn(dim, width=options.width)
    optimiser = optax.adam(optax.cosine_decay_schedule(options.learning_rate, options.iterations))
    source = measures.standard_normal(dim)

    def method(mean, covariance):
        return gradient_flows.icnn_jko(
            potential,
            gradient_flows.free_energy(measures.gaussian(mean, covariance).log_density),
            optimiser,
            num_iterations=options.iterations,
            batch=options.batch,
        )

    @jax.jit
    def start(key):
        keys = jax.random.split(key)
        pool = measures.with_moments(source.spread(keys[0], options.pool), jnp.zeros(dim), jnp.eye(dim))
        sample = Sample(pool, jax.vmap(source.log_density)(pool.position))
        return method(jnp.zeros(dim), jnp.eye(dim)).init((keys[1], sample))

    @jax.jit
    def step(key, state, mean, covariance):
        return method(mean, covariance).step(key, state, STEP_SIZE)

    @jax.jit
    def error(key, maps, mean, covariance, t):
        true = measures.ornstein_uhlenbeck(mean, covariance, t)
        keys = jax.random.split(key)
        before = source.sample(keys[0], options.evaluation)
        zero = Sample(before, jax.vmap(source.log_density)(before.position))
        learned = gradient_flows.carry(potential, maps, zero)

        def log_ratio(x):
            at = gradient_flows.flow_log_density(potential, maps, source.log_density, x)
            return at - jax.vmap(true.log_density)(x)

        return metrics.sampled_symmetric_kl(
            learned.particles, true.sample(keys[1], options.evaluation), log_ratio
        )

    return start, step, error


def floor(mean: np.ndarray, covariance: np.ndarray, t: float) -> float:
    variance, basis = np.linalg.eigh(covariance)
    target = basis.T @ mean, variance
    now = jnp.zeros(mean.size), jnp.ones(mean.size)
    for _ in range(round(t / STEP_SIZE)):
        now = gradient_flows.gaussian_jko_step(*now, *target, STEP_SIZE)
    decay = np.exp(-t / variance)
    exact = (1 - decay) * target[0], variance * (1 - decay**2) + decay**2
    return float(metrics.gaussian_symmetric_kl(now[0], jnp.diag(now[1]), exact[0], jnp.diag(exact[1])))


def trial(compiled, dim: int, index: int) -> dict:
    start, step, error = compiled
    mean, covariance = map(jnp.asarray, targets.ornstein_uhlenbeck(dim, index))
    mean, covariance = mean.astype(float), covariance.astype(float)
    key, *keys = jax.random.split(jax.random.key(index), 20)
    jax.block_until_ready(step(key, start(key), mean, covariance))  # compilation does not count
    state, maps, seconds = start(key), [], []
    for k in range(round(TIMES[-1] / STEP_SIZE)):
        since = time.process_time()
        state, info = jax.block_until_ready(step(keys[k], state, mean, covariance))
        seconds.append(time.process_time() - since)
        maps.append(info.map)
    found = []
    for t in TIMES:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *maps[: round(t / STEP_SIZE)])
        found.append(float(error(keys[-1], stacked, mean, covariance, t)))
    exact = (np.asarray(mean, np.float64), np.asarray(covariance, np.float64))
    return {
        "symmetric_kl": found,
        "floor": [floor(*exact, t) for t in TIMES],
        "cpu_seconds": sum(seconds),
        "step_seconds": [seconds[1], seconds[-1]],
    }


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--dims", type=int, nargs="+", default=[2, 6, 12])
    options.add_argument("--targets", type=int, default=15, help="of every dimension (15)")
    options.add_argument("--first", type=int, default=0, help="index of the first target (0)")
    options.add_argument("--width", type=int, default=8)
    options.add_argument("--pool", type=int, default=65536)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--iterations", type=int, default=60)
    options.add_argument("--learning-rate", type=float, default=3e-3)
    options.add_argument("--evaluation", type=int, default=8192)
    options.add_argument("--quick", action="store_true", help="two targets of every dimension")
    options = options.parse_args()
    if options.quick:
        options.targets = 2
    if options.smoke:
        options.dims, options.targets, options.width = [2], 1, 2
        options.pool, options.batch, options.iterations, options.evaluation = 256, 128, 2, 64
    return options


def main() -> None:
    options = arguments()
    with report("accuracy/ornstein_uhlenbeck", options) as emit:
        for dim in options.dims:
            compiled, runs = flow(options, dim), []
            for index in range(options.first, options.first + options.targets):
                runs.append(trial(compiled, dim, index))
                emit(dim=dim, target=index, **_short(runs[-1]))
            mean = {name: np.mean([run[name] for run in runs], axis=0).tolist() for name in runs[0]}
            emit(dim=dim, targets=len(runs), times=TIMES, **_short(mean), published=PUBLISHED.get(dim))


def _short(run: dict) -> dict:
    return {
        name: list(rounded(dict(enumerate(value))).values()) if isinstance(value, list) else round(value, 2)
        for name, value in run.items()
    }


if __name__ == "__main__":
    main()
