"""Nonlinear filters against their references.

``published``: ``Φ = sin(2πx)/π + x²/4``, nine observations with noise of variance 1, the law half a unit of
time after the last. Symmetric KL to the Chang-Cooper grid (2000 nodes, steps of .001, double precision), as
ICNN-JKO was scored: .0170 in the median, .0579 in the mean, after 13,627 seconds; a bootstrap filter of 10⁴
particles had .0136 after 3.2 s.

``kalman``: two linear models, one with a potential and one that rotates, against Kalman's filter. Errors of
means in standard deviations, of covariances relative to ``√(C_ii C_jj)``; the largest over all times.

``double-well``: five coupled double wells, all coordinates seen. ``lorenz``: Lorenz-63 with noise, only its
first coordinate seen. Both against a bootstrap filter of 10⁶ particles: errors of means in standard
deviations, of standard deviations relative, the largest and the mean over times and coordinates. Beside the
error of the log-evidence stands its deviation over ten bootstrap filters of as many particles.

Seconds are of the CPU, compilation excluded.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import measures, metrics, potentials
from wfr_flows.inference.filtering import (
    Filtered,
    LinearGaussian,
    Observations,
    StateSpace,
    assimilate,
    flow_log_density,
    flow_prediction,
    gaussian_sensor,
    grid_filter,
    kalman_filter,
    metropolis_filter,
    particle_filter,
    simulate,
    state_space,
    wfr_filter,
)
from wfr_flows.measures import Particles

Run = Callable[[jax.Array, Observations], Filtered]


def compiled(method) -> Run:
    return jax.jit(lambda key, data: assimilate(method, key, data))


def timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The second call of a compiled function, and its CPU seconds."""
    jax.block_until_ready(function(*arguments))
    since = time.process_time()
    found = jax.block_until_ready(function(*arguments))
    return found, time.process_time() - since


def rippled() -> StateSpace:
    def potential(x):
        return jnp.sum(jnp.sin(2 * jnp.pi * x) / jnp.pi + x**2 / 4)

    return state_space(measures.standard_normal(1), gaussian_sensor(1.0), potential=potential)


def published(options, emit) -> None:
    model, smoke = rippled(), options.smoke
    sizes = {"num_iterations": 3, "num_steps": 1} if smoke else {}
    prediction = flow_prediction(model, potentials.icnn(1, width=4) if smoke else None, **sizes)
    nodes, steps, many = (200, 20, 500) if smoke else (2000, 500, 10_000)
    few = {"num_particles": 256} if smoke else {}
    chains = {"num_particles": 256, "num_chains": 256, "warm_up": 20} if smoke else {}
    grid = compiled(grid_filter(model, -5.0, 5.0, num_nodes=nodes, num_steps=steps))
    flows = {
        "wfr": compiled(wfr_filter(model, prediction, **few)),
        "metropolis": compiled(metropolis_filter(model, prediction, **chains)),
    }
    bootstrap = compiled(particle_filter(model, many, num_steps=50, threshold=1.1))
    draw = jax.jit(lambda key: simulate(key, model, 0.5 * jnp.arange(1.0, 11.0), num_steps=500)[1])
    flow_density = jax.jit(lambda data, found, x: flow_log_density(model, prediction, data, found, x))

    @jax.jit
    def kernel_density(found: Filtered, x):
        last = Particles(found.particles.position[-1], found.particles.log_weight[-1])
        return jax.lax.map(metrics.kernel_density(last), x, batch_size=100)

    errors: dict[str, list[float]] = {}
    for seed in range(1 if smoke else options.runs):
        data = draw(jax.random.key(seed))
        data = data._replace(value=data.value.at[-1].set(jnp.nan))
        with jax.enable_x64(True):
            exact, grid_seconds = timed(grid, jax.random.key(0), jax.tree.map(jnp.float64, data))
        exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.result_type(float)), exact)
        x = exact.particles.position[-1]
        record: dict[str, Any] = {"grid_seconds": grid_seconds}
        for name, run in ({"bootstrap": bootstrap} | flows).items():
            found, seconds = timed(run, jax.random.key(100 + seed), data)
            at = kernel_density(found, x) if name == "bootstrap" else flow_density(data, found, x)
            errors.setdefault(name, []).append(grid_error(exact.log_density[-1], at, x))
            gap = jnp.sum(found.log_evidence) - jnp.sum(exact.log_evidence)
            record |= {
                name: errors[name][-1],
                f"{name}_evidence_error": float(gap),
                f"{name}_seconds": seconds,
            }
        emit(example="published", seed=seed, **rounded(record))
    for name, values in errors.items():
        summary = {"median": float(np.median(values)), "mean": float(np.mean(values))}
        emit(example="published", method=name, runs=len(values), **rounded(summary))


def grid_error(log_p, log_q, x) -> float:
    """Symmetric KL, both densities normalised on the grid."""
    width = x[1, 0] - x[0, 0]
    log_p, log_q = (log - jax.nn.logsumexp(log) - jnp.log(width) for log in (log_p, log_q))
    return float(metrics.symmetric_kl(log_p, log_q, jnp.full(log_p.shape, width)))


def linear(name: str) -> LinearGaussian:
    drift, noise = {
        "potential": ([[-1.0, 0.3], [0.3, -0.5]], [[1.0, 0.0], [0.0, 1.0]]),
        "rotation": ([[-0.3, 1.0], [-1.0, -0.3]], [[0.8, 0.0], [0.3, 0.5]]),
    }[name]
    see, error = jnp.array([[1.0, 0.0]]), jnp.array([[0.3]])
    start = jnp.zeros(2), jnp.eye(2)
    return LinearGaussian(jnp.array(drift), jnp.array([0.2, -0.1]), jnp.array(noise), see, error, *start)


def kalman(options, emit) -> None:
    smoke = options.smoke
    for name in ("potential", "rotation"):
        model = linear(name)
        general = model.state_space()
        sizes = {"num_iterations": 3, "num_steps": 1} if smoke else {}
        # Smooth laws: units that bend slowly, and steps of order 2.
        prediction = flow_prediction(general, potentials.icnn(2, width=4), order=2, **sizes)
        few = {"num_particles": 256} if smoke else {}
        many = 500 if smoke else 100_000
        methods = {
            "wfr": wfr_filter(general, prediction, **few),
            "bootstrap": particle_filter(general, many, num_steps=10, threshold=1.1),
        }
        exact = compiled(kalman_filter(model))
        for seed in options.seeds:
            _, data = simulate(jax.random.key(seed), general, 0.5 * jnp.arange(1.0, 11.0))
            truth = exact(jax.random.key(0), data)
            for method, one in methods.items():
                found, seconds = timed(compiled(one), jax.random.key(seed), data)
                spread = jnp.sqrt(jnp.einsum("kii,kjj->kij", truth.covariance, truth.covariance))
                record = {
                    "mean_error": float(jnp.max(jnp.abs(found.mean - truth.mean) / truth.standard_deviation)),
                    "covariance_error": float(jnp.max(jnp.abs(found.covariance - truth.covariance) / spread)),
                    "evidence_error": float(jnp.sum(found.log_evidence) - jnp.sum(truth.log_evidence)),
                    "seconds": seconds,
                }
                emit(example="kalman", model=name, method=method, seed=seed, **rounded(record))


def double_well() -> tuple[StateSpace, jax.Array]:
    def potential(x):
        return jnp.sum((x**2 - 1) ** 2) / 2 + 0.25 * jnp.sum((x[1:] - x[:-1]) ** 2)

    sensor = gaussian_sensor(0.7)
    return state_space(measures.standard_normal(5), sensor, potential=potential), 0.3 * jnp.arange(1.0, 11.0)


def lorenz() -> tuple[StateSpace, jax.Array]:
    def drift(t, x):
        return jnp.array([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])

    start = measures.gaussian(jnp.array([-5.9, -5.5, 24.6]), 2.0 * jnp.eye(3))
    sensor = gaussian_sensor(1.0, lambda x: x[:1])
    return state_space(start, sensor, drift=drift, noise=2.0), 0.1 * jnp.arange(1.0, 21.0)


def against_bootstrap(name: str, options, emit) -> None:
    smoke = options.smoke
    model, times = {"double-well": double_well, "lorenz": lorenz}[name]()
    times = times[:2] if smoke else times
    size, many, steps = (128, 500, 2) if smoke else (options.particles, 1_000_000, 20)
    width, sharpness = (4, 1.0) if smoke else ((64, 3.0) if name == "double-well" else (32, 2.0))
    prediction = flow_prediction(
        model,
        potentials.icnn(model.dim, width=width, scale=1.5, sharpness=sharpness),
        num_steps=1 if smoke else options.steps,
        num_iterations=3 if smoke else options.iterations,
        order=1 if name == "double-well" else 2,
    )
    wfr = compiled(wfr_filter(model, prediction, num_particles=size))
    bootstrap = compiled(particle_filter(model, many, num_steps=steps, threshold=1.1))
    same = compiled(particle_filter(model, size, num_steps=steps, threshold=1.1))
    for seed in options.seeds:
        _, data = simulate(jax.random.key(seed), model, times)
        truth, truth_seconds = timed(bootstrap, jax.random.key(1000 + seed), data)
        moments = truth.mean, truth.standard_deviation, jnp.sum(truth.log_evidence)
        del truth
        evidence = [float(jnp.sum(same(jax.random.key(k), data).log_evidence)) for k in range(10)]
        record = {"reference_seconds": truth_seconds, "bootstrap_evidence_deviation": float(np.std(evidence))}
        emit(example=name, seed=seed, particles=many, **rounded(record))
        for method, run in {"wfr": wfr, "bootstrap": same}.items():
            found, seconds = timed(run, jax.random.key(seed), data)
            means = jnp.abs(found.mean - moments[0]) / moments[1]
            deviations = jnp.abs(found.standard_deviation / moments[1] - 1)
            gap = float(jnp.sum(found.log_evidence) - moments[2])
            record = {
                "mean_error": float(jnp.max(means)),
                "average_mean_error": float(jnp.mean(means)),
                "deviation_error": float(jnp.max(deviations)),
                "average_deviation_error": float(jnp.mean(deviations)),
                "evidence_error": gap,
                "least_effective_sample_size": float(jnp.min(found.effective_sample_size)),
                "seconds": seconds,
            }
            emit(example=name, method=method, seed=seed, particles=size, **rounded(record))


def main() -> None:
    options = parser(__doc__)
    examples = ("published", "kalman", "double-well", "lorenz")
    options.add_argument("--examples", nargs="+", choices=examples, default=list(examples))
    options.add_argument("--runs", type=int, default=15, help="of the published example")
    options.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the others")
    options.add_argument("--particles", type=int, default=8192, help="of the WFR filter, against 10⁶")
    options.add_argument("--steps", type=int, default=4, help="JKO steps between observations, likewise")
    options.add_argument("--iterations", type=int, default=200, help="of a JKO step, likewise")
    options = options.parse_args()
    with report("accuracy/filtering", options) as emit:
        for name in options.examples:
            if name == "published":
                published(options, emit)
            elif name == "kalman":
                kalman(options, emit)
            else:
                against_bootstrap(name, options, emit)


if __name__ == "__main__":
    main()
