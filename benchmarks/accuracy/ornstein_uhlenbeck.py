"""ICNN-JKO on the published Ornstein-Uhlenbeck targets: 15 random Gaussians in every dimension.

From N(0, I) in steps of .05 to t = .9. ``symmetric_kl`` to the true law at t = .5 and .9, over 8192 samples
of both; ``floor`` is that of the exact JKO steps, which no solver of these steps can pass. ``published`` are
the means over 15 targets of ICNN_jko in https://github.com/PetrMokrov/Large-Scale-Wasserstein-Gradient-Flows
(results/, commit 4947b00). Seconds are CPU time; ``step_seconds`` those of the second and the last step.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import jko, targets
from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, metrics, potentials

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


def floor(mean: np.ndarray, covariance: np.ndarray, t: float) -> float:
    variance, basis = np.linalg.eigh(covariance)
    target = basis.T @ mean, variance
    now = jnp.zeros(mean.size), jnp.ones(mean.size)
    for _ in range(round(t / STEP_SIZE)):
        now = gradient_flows.gaussian_jko_step(*now, *target, STEP_SIZE)
    decay = np.exp(-t / variance)
    exact = (1 - decay) * target[0], variance * (1 - decay**2) + decay**2
    return float(metrics.gaussian_symmetric_kl(now[0], jnp.diag(now[1]), exact[0], jnp.diag(exact[1])))


def trial(compiled: jko.Flow, dim: int, index: int) -> dict:
    mean, covariance = targets.ornstein_uhlenbeck(dim, index)
    key, error_key = jax.random.split(jax.random.key(index))
    data = jnp.asarray(mean, float), jnp.asarray(covariance, float)
    learned = jko.learn(compiled, key, data, [STEP_SIZE] * round(TIMES[-1] / STEP_SIZE))
    found = []
    for t in TIMES:
        num = round(t / STEP_SIZE)
        maps = jax.tree.map(lambda leaf, num=num: leaf[:num], learned.maps)
        found.append(float(compiled.error(error_key, maps, *data, t)))
    return {
        "symmetric_kl": found,
        "floor": [floor(mean, covariance, t) for t in TIMES],
        "cpu_seconds": sum(learned.seconds),
        "step_seconds": [learned.seconds[1], learned.seconds[-1]],
    }


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--dims", type=int, nargs="+", default=[2, 6, 12])
    options.add_argument("--targets", type=int, default=15, help="of every dimension (15)")
    options.add_argument("--first", type=int, default=0, help="index of the first target (0)")
    options.add_argument("--width", type=int, default=8)
    options.add_argument("--pool", type=int, default=65536)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--iterations", type=int, default=150)
    options.add_argument("--learning-rate", type=float, default=1e-2)
    options.add_argument("--evaluation", type=int, default=8192)
    options.add_argument("--quick", action="store_true", help="two targets of every dimension")
    options = options.parse_args()
    options.temperature = [1.0]
    options.optimiser = lambda num, rate: optax.adam(optax.cosine_decay_schedule(rate, num))
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
            potential = potentials.icnn(dim, width=options.width)
            compiled = jko.flow(options, potential, 1.0, measures.gaussian, measures.ornstein_uhlenbeck)
            runs = []
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
