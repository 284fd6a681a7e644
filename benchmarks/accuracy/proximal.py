"""Proximal flows to a pinwheel and to moons in the first two of D coordinates, and to digits.

``sinkhorn`` is the published metric (debiased, cost ``½|x-y|²``, blur .05, first two coordinates, 5000
against 5000 fresh ones), ``squared_wasserstein`` the mean over five pairs of the exact W₂² of 2000 against
2000, each beside its floor between two fresh samples. Fresh samples have equally many points on every arm or
moon, as the published generators draw them; what the flow carries is independent noise. ``off_manifold`` is
the root mean square of the other coordinates. ``change_N`` is how the divergence changes from 5 Euler steps,
as in training, to N steps: relative, between means over two pairs of samples of 2000. ``slope`` is the
largest of the critic, on data and between; L = 1. ``value_1`` to ``value_4`` are the largest values of the
critic's own objective in the quarters of the training, ``slope_1`` to ``slope_4`` the largest slopes on 1000
data after them. Seconds are CPU time of the training, compilation and
the optimal plan included.

``--without-w1`` takes the bound off the slope, ``--critics`` picks critics, ``--cold`` starts at rest and
puts no weight on the bend of paths. Digits (scikit-learn, 64 dimensions, ``--dims`` does not matter) are
compared in all coordinates with a third of the set, held out, by energy distance; its floor is that of the
points learned from.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import installed, optimal_cost, parser, report, rounded
from wfr_flows import measures, metrics, potentials, proximal, training
from wfr_flows.dynamics import Field, Geometry, Trajectory, carry, potential_field, time_grid
from wfr_flows.measures import Distribution, Particles

WASSERSTEIN = Geometry(jnp.inf)
CRITICS = {
    "penalty": potentials.smooth_critic,
    "spectral": potentials.spectral_critic,
    "orthogonal": potentials.orthogonal_critic,
}
TARGETS = {
    "pinwheel": (measures.pinwheel(), 0.7),
    "moons": (measures.moons(noise=0.05), 2.1),
}
STEPS = (5, 1, 8, 64)
PAIRS, COMPARED = 5, 2


class Trained(NamedTuple):
    """What `proximal.fit` came to."""

    state: training.MinimaxState
    diverged_at: int | None
    quarters: dict[str, float]
    seconds: float


def embedded(name: str, dim: int) -> Distribution:
    """A set in the plane as one in ``dim`` coordinates, the others zero."""
    plane, scale = TARGETS[name]

    def lifted(draw):
        def sample(key: jax.Array, n: int) -> Particles:
            flat = draw(key, n)
            return flat._replace(position=jnp.pad(scale * flat.position, ((0, 0), (0, dim - 2))))

        return sample

    return Distribution(dim, lifted(plane.sample), None, lifted(plane.spread))


def plane(measure: Particles) -> Particles:
    return measures.equally_weighted(measure.position[:, :2])


class Tools(NamedTuple):
    """Networks, and compiled functions of their parameters, the same for all seeds."""

    critic_name: str
    field: Field
    critic: potentials.Critic
    carry: Callable[..., Trajectory]
    diagnose: Callable[..., proximal.Diagnostics]
    steepest: Callable[..., jax.Array]


@cache
def tools(dim: int, width: int, critic: str, kinetic_weight: float) -> Tools:
    potential = potentials.arrival(potentials.mlp(dim, width=width), dim)
    field, judge = potential_field(potential, WASSERSTEIN), CRITICS[critic](dim, width=width)
    look = partial(proximal.diagnose, potential, WASSERSTEIN, judge, kinetic_weight=kinetic_weight)
    move = partial(carry, field, WASSERSTEIN, solver=proximal.EULER)
    steepest = jax.jit(lambda params, position: jnp.max(proximal.slopes(judge, params, position)))
    return Tools(critic, field, judge, jax.jit(move), jax.jit(look), steepest)


def train(options, key: jax.Array, tool: Tools, data: Particles) -> Trained:
    seen, free = [], tool.critic_name == "penalty"

    def watch(chunk: training.Chunk) -> None:
        steepest = tool.steepest(chunk.state.inner, data.position[:1000])
        seen.append((float(jnp.max(chunk.info.inner_value)), float(steepest)))

    since = time.process_time()
    try:
        state = proximal.fit(
            key,
            tool.field,
            WASSERSTEIN,
            tool.critic,
            measures.standard_normal(data.position.shape[1]),
            measures.empirical(data),
            start_steps=0 if options.cold else options.start_steps,
            steps=options.steps,
            straighten_steps=0 if options.cold else options.straighten_steps,
            batch=options.batch,
            num_lines=options.lines,
            flow_rate=3e-3 if options.cold else 1e-4,
            kinetic_weight=options.kinetic_weight,
            residual_weight=0.5,
            bend_weight=0.0 if options.cold else 100.0,
            penalty_weight=0.0 if options.without_w1 or not free else 30.0,
            on_chunk=watch,
        )
        diverged_at = None
    except training.NonFiniteError as error:
        state, diverged_at = error.state, error.step
    seconds = time.process_time() - since
    return Trained(state, diverged_at, quarters(seen), seconds)


def quarters(seen: list[tuple[float, float]]) -> dict[str, float]:
    """Largest value in every quarter of the training and slope at its end."""
    parts = np.array_split(np.reshape(seen, (-1, 2)), 4)
    values = {f"value_{i + 1}": np.max(part[:, 0], initial=-np.inf) for i, part in enumerate(parts)}
    return values | {f"slope_{i + 1}": part[-1, 1] for i, part in enumerate(parts) if len(part)}


def conditions(tool: Tools, state, noise: Particles, fresh: Particles) -> dict:
    """Conditions of optimality, and the slope of the critic."""
    found = tool.diagnose(state.average, state.inner, jax.random.key(1), noise, fresh)
    return {
        "slope": jnp.maximum(found.slope_on_data, found.slope_between),
        "bound": found.divergence,
        "action": found.action,
        "relative_residual": found.residual,
        "terminal_gap": found.terminal_gap,
        "bend": found.bend,
    }


def judged(options, key: jax.Array, generate, target: Distribution) -> dict:
    """Distances of ``generate(noise, num_steps)`` to fresh samples, in the plane."""
    keys, size = jax.random.split(key), options.samples
    few = min(2000, size)
    normal = measures.standard_normal(target.dim)
    divergence = jax.jit(lambda a, b: metrics.sinkhorn_divergence(a, b).value)
    noise = [normal.sample(k, few) for k in jax.random.split(keys[0], PAIRS)]
    fresh = [target.spread(k, few) for k in jax.random.split(keys[1], PAIRS)]
    moved = {n: [generate(each, n) for each in noise[: PAIRS if n == 5 else COMPARED]] for n in STEPS}
    means = {
        n: np.mean([divergence(plane(m), plane(f)) for m, f in zip(each[:COMPARED], fresh, strict=False)])
        for n, each in moved.items()
    }
    beside = [m.position[:, 2:] for m in moved[5]]
    return {
        "sinkhorn": divergence(
            plane(generate(normal.sample(keys[0], size), 5)), plane(target.spread(keys[1], size))
        ),
        "squared_wasserstein": np.mean(
            [optimal_cost(plane(m).position, plane(f).position) for m, f in zip(moved[5], fresh, strict=True)]
        ),
        "off_manifold": jnp.sqrt(jnp.mean(jnp.stack(beside) ** 2)) if target.dim > 2 else 0.0,
        **{f"change_{n}": means[n] / means[5] - 1 for n in STEPS[1:]},
    } | floors(options.target, size)


@cache
def floors(name: str, size: int) -> dict:
    """Between fresh samples."""
    draw, few = embedded(name, 2).spread, min(2000, size)
    keys = jax.random.split(jax.random.key(1), PAIRS + 1)
    many, fresh = [draw(k, size) for k in keys[:2]], [draw(k, few) for k in keys]
    return {
        "sinkhorn_floor": float(jax.jit(metrics.sinkhorn_divergence)(*many).value),
        "floor": np.mean([optimal_cost(a.position, b.position) for a, b in pairwise(fresh)]).item(),
    }


def sampler(tool: Tools, params):
    """``generate(noise, num_steps)`` of a trained flow."""
    return lambda noise, num_steps: tool.carry(params, noise, time_grid(num_steps)).at(-1)


def numbers(found: dict) -> dict:
    """As numbers, None for those that are not finite."""
    as_floats = {name: None if value is None else float(value) for name, value in found.items()}
    return {name: value if value is None or np.isfinite(value) else None for name, value in as_floats.items()}


def in_the_plane(options, tool: Tools, dim: int, seed: int) -> dict:
    keys = jax.random.split(jax.random.key(seed), 3)
    target = embedded(options.target, dim)
    trained = train(options, keys[0], tool, target.spread(keys[1], options.data))
    noise = measures.standard_normal(dim).sample(keys[2], options.samples)
    found = conditions(tool, trained.state, noise, target.spread(keys[2], options.samples))
    return found | judged(options, keys[2], sampler(tool, trained.state.average), target) | of(trained)


def digits(options, tool: Tools, dim: int, seed: int) -> dict:
    """In units of half the range of a pixel, about the mean."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  optional

    keys = jax.random.split(jax.random.key(seed), 3)
    pixels = jax.random.permutation(keys[0], jnp.asarray(load_digits().data / 8.0, jnp.float32))
    pixels -= jnp.mean(pixels, axis=0)
    held, seen = (measures.equally_weighted(part) for part in (pixels[:599], pixels[599:]))
    trained = train(options, keys[1], tool, seen)
    noise, generate = (
        measures.standard_normal(dim).sample(keys[2], 2000),
        sampler(tool, trained.state.average),
    )
    distance = jax.jit(metrics.energy_distance)
    found = {
        "energy_distance": distance(generate(noise, 5), held),
        "floor": distance(seen, held),
        "of_noise": distance(noise, held),
        **{f"energy_distance_{n}": distance(generate(noise, n), held) for n in STEPS[1:]},
    }
    return found | conditions(tool, trained.state, noise, held) | of(trained)


def of(trained: Trained) -> dict:
    return trained.quarters | {"diverged_at": trained.diverged_at, "seconds": trained.seconds}


def main() -> None:
    options = parser(__doc__)
    add = options.add_argument
    add("--dims", type=int, nargs="+", default=[2, 7, 12])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--target", choices=[*TARGETS, "digits"], default="pinwheel")
    add("--critics", choices=CRITICS, nargs="+", default=["penalty"])
    add("--without-w1", action="store_true")
    add("--cold", action="store_true")
    add("--start-steps", type=int, default=12000)
    add("--steps", type=int, default=500)
    add("--straighten-steps", type=int, default=6000)
    add("--batch", type=int, default=1024)
    add("--width", type=int, default=48)
    add("--data", type=int, default=20000)
    add("--lines", type=int, default=20300)
    add("--samples", type=int, default=5000)
    add("--kinetic-weight", type=float, default=0.02)
    options = options.parse_args()
    if options.smoke:
        options.dims, options.seeds, options.width, options.samples = [2], [0], 4, 50
        options.cold, options.steps, options.batch, options.data = True, 2, 16, 100
    if options.target == "digits":
        options.dims = [64]
        if not installed("sklearn"):
            raise SystemExit("digits come with scikit-learn; pip install 'wfr-flows[tables]'.")
    with report("accuracy/proximal", options) as emit:
        for seed in options.seeds:
            for dim in options.dims:
                for critic in options.critics:
                    tool = tools(dim, options.width, critic, options.kinetic_weight)
                    run = digits if options.target == "digits" else in_the_plane
                    found = rounded(numbers(run(options, tool, dim, seed)))
                    setting = {"target": options.target, "critic": critic, "cold": options.cold}
                    emit(**setting, without_w1=options.without_w1, dim=dim, seed=seed, **found)


if __name__ == "__main__":
    main()
