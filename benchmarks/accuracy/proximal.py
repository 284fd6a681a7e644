"""Proximal flows to a pinwheel and to moons in the first two of D coordinates, at the published scale.

``sinkhorn`` is the published metric (debiased, cost ``½|x-y|²``, blur .05, first two coordinates, 5000
against 5000 fresh ones), ``squared_wasserstein`` the exact W₂² of 2000 against 2000, each beside its floor
between two fresh samples. ``off_manifold`` is the root mean square of the other coordinates. ``steps_N``
repeats the metric with N Euler steps of sampling; training has 5. ``slope`` is the largest of the critic, on
data and between; L = 1. Seconds are CPU time of the training, compilation and the optimal plan included.

``--without-w1`` trains without gradient penalty from the same start; ``--critic`` picks another critic.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import measures, metrics, potentials, proximal, training
from wfr_flows.dynamics import Geometry, potential_field, time_grid
from wfr_flows.measures import Distribution, Particles

WASSERSTEIN = Geometry(jnp.inf)
CRITICS = {
    "penalty": potentials.smooth_critic,
    "spectral": potentials.spectral_critic,
    "orthogonal": potentials.orthogonal_critic,
}
TARGETS = {
    "pinwheel": (measures.pinwheel(), 0.7),
    "moons": (measures.moons(), 2.1),
}


def embedded(name: str, dim: int) -> Distribution:
    """A set in the plane as one in ``dim`` coordinates, the others zero."""
    plane, scale = TARGETS[name]

    def sample(key: jax.Array, n: int) -> Particles:
        flat = plane.sample(key, n)
        return flat._replace(position=jnp.pad(scale * flat.position, ((0, 0), (0, dim - 2))))

    return Distribution(dim, sample, None, sample)


def squared_wasserstein(a: Particles, b: Particles) -> float:
    import ot  # noqa: PLC0415  optional

    x, y = (np.asarray(measure.position, float) for measure in (a, b))
    return np.sum(ot.emd2([], [], ot.dist(x, y))).item()


def plane(measure: Particles, size: int) -> Particles:
    return measures.equally_weighted(measure.position[:size, :2])


def experiment(options, dim: int, seed: int) -> dict:
    keys = jax.random.split(jax.random.key(seed), 5)
    source, target = measures.standard_normal(dim), embedded(options.target, dim)
    data = measures.empirical(target.sample(keys[0], options.data))
    potential = potentials.arrival(potentials.mlp(dim, width=options.width), dim)
    critic = CRITICS[options.critic](dim, width=options.width)
    field = potential_field(potential, WASSERSTEIN)
    unbound = options.without_w1 or options.critic != "penalty"
    since = time.process_time()
    try:
        state = proximal.fit(
            keys[1],
            field,
            WASSERSTEIN,
            critic,
            source,
            data,
            start_steps=options.start_steps,
            steps=options.steps,
            batch=options.batch,
            num_particles=options.particles,
            kinetic_weight=options.kinetic_weight,
            residual_weight=options.residual_weight,
            penalty_weight=0.0 if unbound else 10.0,
        )
        diverged_at = None
    except training.NonFiniteError as error:
        state, diverged_at = error.state, error.step
    seconds = time.process_time() - since
    fresh, other = (target.sample(key, options.samples) for key in keys[2:4])
    noise = source.sample(keys[4], options.samples)
    carried = {
        n: proximal.carry(field, WASSERSTEIN, state.average, noise, time_grid(n)) for n in (5, 1, 8, 64)
    }
    moved = {n: each.trajectory.at(-1) for n, each in carried.items()}
    few = min(2000, options.samples)
    divergence = jax.jit(metrics.sinkhorn_divergence)
    look = partial(proximal.diagnose, potential, WASSERSTEIN, critic, kinetic_weight=options.kinetic_weight)
    found = jax.jit(look)(state.average, state.inner, keys[2], noise, fresh)
    sinkhorn = {
        n: divergence(plane(m, options.samples), plane(fresh, options.samples)) for n, m in moved.items()
    }
    numbers = {
        "sinkhorn": sinkhorn[5],
        "sinkhorn_floor": divergence(plane(other, options.samples), plane(fresh, options.samples)),
        "squared_wasserstein": squared_wasserstein(plane(moved[5], few), plane(fresh, few)),
        "floor": squared_wasserstein(plane(other, few), plane(fresh, few)),
        "off_manifold": jnp.sqrt(jnp.mean(moved[5].position[:, 2:] ** 2)) if dim > 2 else 0.0,
        **{f"steps_{n}": sinkhorn[n] for n in (1, 8, 64)},
        "slope": jnp.maximum(found.slope_on_data, found.slope_between),
        "bound": found.divergence,
        "action": found.action,
        "relative_residual": found.residual,
        "terminal_gap": found.terminal_gap,
        "bend": found.bend,
    }
    finite = {k: float(v) if np.isfinite(float(v)) else None for k, v in numbers.items()}
    return {**finite, "diverged_at": diverged_at, "seconds": seconds}


def main() -> None:
    options = parser(__doc__)
    add = options.add_argument
    add("--dims", type=int, nargs="+", default=[2, 7, 12])
    add("--seeds", type=int, nargs="+", default=[0])
    add("--target", choices=TARGETS, default="pinwheel")
    add("--critic", choices=CRITICS, default="penalty")
    add("--without-w1", action="store_true")
    add("--start-steps", type=int, default=12000)
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=2048)
    add("--width", type=int, default=48)
    add("--data", type=int, default=20000)
    add("--particles", type=int, default=2900)
    add("--samples", type=int, default=5000)
    add("--kinetic-weight", type=float, default=0.02)
    add("--residual-weight", type=float, default=0.5)
    options = options.parse_args()
    if options.smoke:
        options.dims, options.width, options.samples = [2], 4, 50
        options.start_steps, options.steps, options.batch, options.data = 0, 2, 16, 100
    with report("accuracy/proximal", options) as emit:
        for dim in options.dims:
            for seed in options.seeds:
                found = rounded(experiment(options, dim, seed))
                setting = {
                    "target": options.target,
                    "critic": options.critic,
                    "without_w1": options.without_w1,
                }
                emit(
                    **setting,
                    dim=dim,
                    seed=seed,
                    start_steps=options.start_steps,
                    steps=options.steps,
                    **found,
                )


if __name__ == "__main__":
    main()
