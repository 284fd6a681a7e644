"""Q-flow and density ratios against closed forms and certified optima.

gaussians: random covariances of condition about 10, independent pairs to begin with, potentials quadratic in
space; the learned cost beside that of Bures, and the error of the map on 4000 fresh points, relative to the
map and to its displacement. The initial cost is that of the flow of the first matching.

moons: two moons (noise .05, scaled to standard deviations 2 and √5) to the checkerboard, from two flows
back to back through N(0, I). Costs both ways, means over 16 pairs of fresh samples, beside the exact optimum
between the same samples. No sample has the shares of its law, so that of 2000 points is above W₂² of both;
half of what it costs to take a sample to another of the same law is taken off in `optimum_less_floors`. The
energy distance beside that between fresh samples; the largest error there and back. Skipped without POT.

unbalanced: clusters of masses .7 and .3 to clusters of .4 and .9, one further up, alpha .5, too far apart to
exchange mass. Cost beside the certified optimum between fresh samples; masses, all and on the left.

information: mutual information of d/2 correlated pairs of Gaussians, d/4 nats in all, from 50,000 points.

mixtures: three components to two in the plane, from 20,000 points; mean absolute errors of the log-ratio on
5000 fresh points of either, over all and over the bulk, where neither log-density is below -7. All learn by
heart in time, so each way is given a number of steps, twice as many, and three networks whose mean counts.
"""

import time
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import installed, optimal_cost, parser, report, rounded
from wfr_flows import dynamics, geodesics, measures, metrics, potentials, refinement, static
from wfr_flows.dynamics import Geometry, carry, time_grid

WASSERSTEIN = Geometry(float("inf"), spherical=False)


def ends_of(source, target):
    def draw(key, n):
        first, last = jax.random.split(key)
        return source(first, n), target(last, n)

    return draw


def root(matrix):
    spectrum, basis = np.linalg.eigh(matrix)
    return (basis * np.sqrt(spectrum)) @ basis.T


def gaussians(key, dim, smoke):
    rng = np.random.default_rng(dim)

    def covariance():
        basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        return (basis * np.exp(rng.uniform(np.log(0.3), np.log(3.0), dim))) @ basis.T

    first, last, shift = covariance(), covariance(), 2 * rng.normal(size=dim) / np.sqrt(dim)
    half = root(first)
    middle = root(half @ last @ half)
    optimal = np.linalg.solve(half, middle) @ np.linalg.inv(half)
    bures = shift @ shift + np.trace(first + last - 2 * middle)
    source, target = measures.gaussian(np.zeros(dim), first), measures.gaussian(shift, last)
    draw = ends_of(source.sample, target.sample)
    potential = potentials.moving_quadratic(dim, degree=4)
    field = dynamics.potential_field(potential, WASSERSTEIN)
    keys = jax.random.split(key, 3)
    steps, size = (4, 512) if smoke else (400, 1 << 16)
    points = source.sample(keys[2], 4000)
    exact = shift + np.asarray(points.position) @ optimal
    since = time.process_time()
    learn = partial(refinement.refine, field=field, geometry=WASSERSTEIN, draw=draw, num_pairs=size)
    learn = partial(learn, ratio=potentials.moving_quadratic(dim, degree=0), matching_steps=steps)
    begun = learn(keys[0], rounds=0, refinement_steps=0)
    pairs = jax.jit(partial(refinement.flow_pairs, field, WASSERSTEIN))(begun, *draw(keys[1], size))
    params = learn(
        keys[1],
        pairs=pairs,
        start=begun,
        rounds=0 if smoke else 1,
        refinement_steps=steps // 2,
        batch=2000,
        refinement_rate=1e-3,
        ratio_rate=3e-3,
    )
    seconds = time.process_time() - since
    take = jax.jit(partial(carry, field, WASSERSTEIN))
    forward, backward = time_grid(16), time_grid(16, reverse=True)
    before, after = (take(p, points, forward) for p in (begun, params))
    again = take(params, after.at(-1), backward).position[-1]
    error = float(np.sum((np.asarray(after.position[-1]) - exact) ** 2))
    return {
        "bures": float(bures),
        "initial_cost": float(refinement.transport_cost(before, WASSERSTEIN)),
        "cost": float(refinement.transport_cost(after, WASSERSTEIN)),
        "relative_cost_error": float(refinement.transport_cost(after, WASSERSTEIN)) / float(bures) - 1,
        "relative_map_error": (error / np.sum(exact**2)) ** 0.5,
        "relative_displacement_error": (error / np.sum((exact - np.asarray(points.position)) ** 2)) ** 0.5,
        "inverse_error": float(jnp.max(jnp.abs(again - points.position))),
        "cpu_seconds": seconds,
    }


def moons():
    """Two moons of exact standard deviations 2 and √5, as draws."""
    law = measures.moons(noise=0.05)
    # Its moments, by E sin = 2/π.
    mean = jnp.array([0.0, 0.3])
    variance = 4 * jnp.array([0.7525, 0.565 - 1 / jnp.pi])

    def sample(key, n):
        drawn = law.sample(key, n)
        return drawn._replace(
            position=(drawn.position - mean) * jnp.array([2.0, 5**0.5]) / jnp.sqrt(variance)
        )

    return sample


def plane(key, smoke):
    board, normal = measures.checkerboard(), measures.standard_normal(2)
    source = moons()
    draw = ends_of(source, board.sample)
    keys = iter(jax.random.split(key, 64))
    steps, size, width = (2, 512, 4) if smoke else (2000, 1 << 15, 64)
    half = dynamics.free_field(2, width=width)
    since = time.process_time()

    def matched(source, target):
        pairs = refinement.independent_pairs(next(keys), source, target, size)
        loss = refinement.flow_matching(half, WASSERSTEIN, pairs)
        return geodesics.fit_matching(next(keys), half.init(next(keys)), loss, steps)

    noise = normal.sample(next(keys), size)
    halves = matched(source(next(keys), size), noise), matched(noise, board.sample(next(keys), size))
    initial = dynamics.windowed(half, jnp.array([0.0, 0.5, 1.0]))
    begun = jax.tree.map(lambda a, b: jnp.stack([a, b]), *halves)
    initial_seconds = time.process_time() - since
    field = dynamics.potential_field(potentials.mlp(2, width=width), WASSERSTEIN)
    since = time.process_time()
    pairs = jax.jit(partial(refinement.flow_pairs, initial, WASSERSTEIN))(begun, *draw(next(keys), size))
    params = refinement.refine(
        next(keys),
        field,
        WASSERSTEIN,
        potentials.mlp(2, width=width),
        draw,
        pairs=pairs,
        rounds=0 if smoke else 1,
        num_pairs=size,
        matching_steps=2 * steps,
        refinement_steps=2 if smoke else 600,
    )
    seconds = time.process_time() - since
    return {
        "initial_cpu_seconds": initial_seconds,
        "refinement_cpu_seconds": seconds,
        **_judged(keys, draw, initial, begun, field, params, 200 if smoke else 2000, 1 if smoke else 16),
    }


def _judged(keys, draw, initial, begun, field, params, size, repeats):
    distance = jax.jit(metrics.energy_distance)
    before = jax.jit(partial(carry, initial, WASSERSTEIN))
    take = jax.jit(partial(carry, field, WASSERSTEIN))
    forward, backward = time_grid(32), time_grid(32, reverse=True)
    rows = []
    for _ in range(repeats):
        source, target = draw(next(keys), size)
        other_source, other_target = draw(next(keys), size)
        there, back = take(params, source, forward), take(params, target, backward)
        rows.append(
            {
                "initial_cost": refinement.transport_cost(before(begun, source, forward), WASSERSTEIN),
                "cost": refinement.transport_cost(there, WASSERSTEIN),
                "cost_back": refinement.transport_cost(back, WASSERSTEIN),
                "discrete_optimum": optimal_cost(source.position, target.position),
                "optimum_of_sources": optimal_cost(other_source.position, source.position),
                "optimum_of_targets": optimal_cost(other_target.position, target.position),
                "energy_distance_target": distance(there.at(-1), target),
                "energy_distance_source": distance(back.at(-1), source),
                "floor_target": distance(other_target, target),
                "floor_source": distance(other_source, source),
            }
        )
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    _, error = refinement.round_trip(field, WASSERSTEIN, params, source)
    mean_cost = 0.5 * (found["cost"] + found["cost_back"])
    optimum = found["discrete_optimum"]
    many = [[m.position for m in draw(next(keys), 4 * size)] for _ in range(1 if repeats == 1 else 2)]
    less_floors = optimum - 0.5 * (found["optimum_of_sources"] + found["optimum_of_targets"])
    return found | {
        "discrete_optimum_4x": float(np.mean([optimal_cost(*pair) for pair in many])),
        "relative_cost_error": mean_cost / optimum - 1,
        "optimum_less_floors": less_floors,
        "relative_cost_error_less_floors": mean_cost / less_floors - 1,
        "floor_ratio_target": found["energy_distance_target"] / found["floor_target"],
        "floor_ratio_source": found["energy_distance_source"] / found["floor_source"],
        "inverse_error": float(jnp.max(error)),
    }


def unbalanced(key, smoke):
    alpha, size = 0.5, 100 if smoke else 1000
    geometry = Geometry(alpha, spherical=False)
    steps = 10 if smoke else 1000
    spread = jnp.stack([0.09 * jnp.eye(2)] * 2)

    def weighted(shares, height):
        law = measures.mixture(shares, [[-1.5, height], [1.5, height]], spread)

        def sample(key, n):
            drawn = law.sample(key, n)
            return drawn._replace(log_weight=drawn.log_weight + jnp.log(sum(shares)))

        return sample

    draw = ends_of(weighted((0.7, 0.3), 0.0), weighted((0.4, 0.9), 1.0))
    keys = jax.random.split(key, 3)
    network = potentials.mlp(2, width=4 if smoke else 64)
    field = dynamics.potential_field(network, geometry)
    since = time.process_time()
    params = refinement.refine(
        keys[0],
        field,
        geometry,
        network,
        draw,
        rounds=0 if smoke else 2,
        matching_steps=steps,
        refinement_steps=steps // 5,
    )
    seconds = time.process_time() - since
    source, target = draw(keys[1], size)
    optimum = jax.jit(partial(static.wfr, alpha=alpha, tolerance=1e-3))(source, target)
    take = jax.jit(partial(carry, field, geometry))
    there = take(params, source, time_grid(32))
    arrived, (_, other) = there.at(-1), draw(keys[2], size)
    left = [float(jnp.sum(m.weight * (m.position[:, 0] < 0))) for m in (arrived, target)]
    distance = jax.jit(lambda a, b: metrics.energy_distance(a.normalise(), b.normalise()))
    cost = float(refinement.transport_cost(there, geometry))
    _, error = refinement.round_trip(field, geometry, params, source)
    return {
        "cost": cost,
        "discrete_optimum": float(2 * optimum.value),
        "relative_cost_error": cost / float(2 * optimum.value) - 1,
        "relative_mass_error": float(arrived.mass / target.mass) - 1,
        "mass_left": left[0],
        "mass_left_asked": left[1],
        "floor_ratio": float(distance(arrived, target) / distance(other, target)),
        "inverse_error": float(jnp.max(error)),
        "cpu_seconds": seconds,
    }


def information(key, dim, smoke):
    correlation = np.sqrt(1 - np.exp(-1.0))
    covariance = jnp.kron(jnp.eye(dim // 2), jnp.array([[1.0, correlation], [correlation, 1.0]]))
    apart, together = measures.standard_normal(dim), measures.gaussian(jnp.zeros(dim), covariance)
    size, steps = (500, 10) if smoke else (50_000, 600)
    keys = jax.random.split(key, 5)
    source, target = apart.sample(keys[0], size), together.sample(keys[1], size)
    since = time.process_time()
    field = dynamics.potential_field(potentials.moving_quadratic(dim, degree=3), WASSERSTEIN)
    params = refinement.refine(
        keys[2],
        field,
        WASSERSTEIN,
        potentials.quadratic(dim),
        refinement.between(source, target),
        rounds=0 if smoke else 1,
        matching_steps=steps // 2,
        refinement_steps=0,
    )
    ratio = potentials.moving_quadratic(dim, degree=3)
    grid = jnp.linspace(0.0, 1.0, 11)
    bridge = refinement.flow_bridge(field, WASSERSTEIN, params, source, target, grid, batch=256)
    log_ratio, learned = refinement.fit_ratio(
        keys[3], ratio, grid, bridge, num_steps=steps, learning_rate=0.1
    )
    seconds = time.process_time() - since
    fresh = together.sample(keys[4], 20_000).position
    values = jax.jit(lambda x: jax.lax.map(lambda y: log_ratio(learned, y), x, batch_size=2000))(fresh)
    found, exact = float(jnp.mean(values)), dim / 4
    return {"exact": exact, "found": found, "relative_error": found / exact - 1, "cpu_seconds": seconds}


def mixtures(key, smoke):
    source = measures.mixture(
        [0.3, 0.3, 0.4], [[-2.0, -2.0], [2.0, -2.0], [0.0, 2.5]], jnp.stack([0.6 * jnp.eye(2)] * 3)
    )
    target = measures.mixture(
        [0.5, 0.5], [[-2.5, 1.0], [2.5, 1.0]], [[[0.8, 0.3], [0.3, 0.6]], [[0.8, -0.3], [-0.3, 0.6]]]
    )
    size, steps = (500, 4) if smoke else (20_000, 800)
    keys = iter(jax.random.split(key, 32))
    p, q = source.sample(next(keys), size), target.sample(next(keys), size)
    x = jnp.concatenate([d.sample(next(keys), 5000).position for d in (source, target)])
    log_p, log_q = (jax.vmap(d.log_density)(x) for d in (source, target))
    bulk = jnp.minimum(log_p, log_q) > -7

    def errors(values):
        error = jnp.abs(values - (log_q - log_p))
        return {"mae": float(jnp.mean(error)), "bulk": float(jnp.sum(error * bulk) / jnp.sum(bulk))}

    field = dynamics.potential_field(potentials.mlp(2), WASSERSTEIN)
    params = refinement.refine(
        next(keys),
        field,
        WASSERSTEIN,
        potentials.mlp(2),
        refinement.between(p, q),
        rounds=1,
        matching_steps=steps,
        refinement_steps=0,
    )
    many = jnp.linspace(0.0, 1.0, 9)
    bridge = refinement.flow_bridge(field, WASSERSTEIN, params, p, q, many, batch=256, noise=0.5)
    for row in _ratios(keys, p, q, many, bridge, steps, smoke):
        values = row.pop("at")(x)
        yield row | errors(values)
    for width in (0.3,) if smoke else (None, 0.2, 0.3, 0.4):
        smooth = [metrics.kernel_density(m, width) for m in (p, q)]
        at = [jax.jit(lambda x, d=d: jax.lax.map(d, x, batch_size=100))(x) for d in smooth]
        yield {"method": f"kernel density, {width or 'Silverman'}", **errors(at[1] - at[0])}


def _ratios(keys, p, q, many, bridge, steps, smoke):
    """Ours and the baselines: networks of one size, alone, for longer, or three of them and their mean."""
    network = potentials.total(
        potentials.moving_quadratic(2, degree=2), potentials.mlp(2, width=4 if smoke else 64)
    )
    linear, one = refinement.linear_bridge, jnp.array([0.0, 1.0])
    methods = {
        "flow": (network, many, bridge, 2),
        "linear bridge": (refinement.stepwise(network, many), many, linear(p, q, many, batch=256), 1),
        "one classifier": (refinement.stepwise(network, one), one, linear(p, q, one, batch=2048), 1),
    }

    def fitted(name, length):
        ratio, time, draw, nodes = methods[name]
        log_ratio, params = refinement.fit_ratio(
            next(keys), ratio, time, draw, num_steps=length, num_nodes=nodes
        )
        return jax.jit(jax.vmap(partial(log_ratio, params)))

    sizes = [(steps, 1)] if smoke else [(steps, 1), (2 * steps, 1), (steps, 3)]
    for name, (length, number) in product(methods, sizes):
        since = time.process_time()
        found = [fitted(name, length) for _ in range(number)]
        yield {
            "method": name,
            "steps": length,
            "networks": number,
            "cpu_seconds": time.process_time() - since,
            "at": lambda x, found=found: sum(f(x) for f in found) / len(found),
        }


def main() -> None:
    options = parser(__doc__)
    examples = ["gaussians", "information", "mixtures", "unbalanced", "moons"]
    options.add_argument("--examples", nargs="+", choices=examples, default=["mixtures"])
    options.add_argument("--dims", type=int, nargs="+", default=[2, 10, 50], help="of the Gaussians")
    options.add_argument("--pairs", type=int, nargs="+", default=[2, 10, 40, 80], help="of the information")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = options.parse_args()
    if options.smoke:
        options.examples, options.dims, options.pairs, options.seeds = examples, [2], [2], [0]
    with report("accuracy/refinement", options) as emit:
        for seed in options.seeds:
            key = jax.random.key(seed)
            if "gaussians" in options.examples:
                for dim in options.dims:
                    emit(
                        example="gaussians", dim=dim, seed=seed, **rounded(gaussians(key, dim, options.smoke))
                    )
            if "information" in options.examples:
                for dim in options.pairs:
                    emit(
                        example="information",
                        dim=dim,
                        seed=seed,
                        **rounded(information(key, dim, options.smoke)),
                    )
            if "mixtures" in options.examples:
                for row in mixtures(key, options.smoke):
                    emit(example="mixtures", seed=seed, **rounded(row))
            if "unbalanced" in options.examples:
                emit(example="unbalanced", seed=seed, **rounded(unbalanced(key, options.smoke)))
            if "moons" in options.examples:
                found = plane(key, options.smoke) if installed("ot") else {"skipped": "no POT"}
                emit(example="moons", seed=seed, **rounded(found))


if __name__ == "__main__":
    main()
