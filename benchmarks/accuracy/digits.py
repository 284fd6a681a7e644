"""Handwritten digits of scikit-learn (8 by 8, 17 grey levels): energy models, and transfer between styles.

energies: log p = log base + log-ratio, of images with uniform noise in [0, 1) added to their grey levels;
three quarters to learn from, the others to judge by, in bits per dimension. Bases are a Gaussian, a Gaussian
copula with the histograms of the pixels, and a flow learned by matching; ratios, in the coordinates in which
the base is standard normal, are learned along the path of a refined flow (ours), along straight lines (TRE),
and by one classifier, each with networks of one size and one decay of weights. A ratio that is off need not
leave a model of mass 1, and bits of a mass above 1 are no bits of a density. So `bits` are those of the
normalised model, `bits_as_published` those without: `log_mass` is what annealed importance sampling finds,
with so many effective of 500 chains. Where these are few the mass is likely larger, and so are the bits.

transfer: digits to other digits, noised or turned by a quarter, in the first principal components; no image
is paired with its own. The flow is matched to the optimal pairs of both samples, then to its own. Of images
held out: the energy distance to the target beside that of others of the target, and of the images as they
were; how often the nearest neighbour of an image's image has its label (turned digits need not: transport
looks at pixels alone); the cost, below the discrete optimum of so few points, which the distance of the
samples from their laws outweighs.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import installed, parser, report, rounded
from wfr_flows import dynamics, metrics, potentials, refinement, static
from wfr_flows.dynamics import Geometry, carry, time_grid
from wfr_flows.measures import equally_weighted, standard_normal

WASSERSTEIN = Geometry(float("inf"), spherical=False)
LEVELS, DIM = 17, 64


def images(seed):
    """Grey levels and labels in an order of the seed, the first three quarters to learn from."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.data))
    return found.data[order].astype(np.float32), found.target[order]


def noised(key, levels, copies=1):
    levels = jnp.tile(jnp.asarray(levels), (copies, 1))
    return levels + jax.random.uniform(key, levels.shape)


def network(dim, width):
    return potentials.total(potentials.moving_quadratic(dim, degree=2), potentials.mlp(dim, width=width))


def flow_from_normal(key, data, steps, width, rounds):
    """A flow from the standard normal to the data, matched to independent pairs, then to its own."""
    field = dynamics.potential_field(network(DIM, width), WASSERSTEIN)

    def draw(key, n):
        own, other = jax.random.split(key)
        index = jax.random.randint(other, (n,), 0, data.position.shape[0])
        return standard_normal(DIM).sample(own, n), equally_weighted(data.position[index])

    learn = partial(refinement.refine, matching_steps=steps, refinement_steps=0, learning_rate=1e-2)
    return field, learn(key, field, WASSERSTEIN, network(DIM, width), draw, rounds=rounds)


def bases(key, names, train, steps, width):
    """Bases by name, and the seconds that it took to learn them."""
    gaussian = refinement.gaussian_base(train)
    for name in names:
        since = time.process_time()
        if name == "gaussian":
            base = gaussian
        elif name == "copula":
            base = refinement.copula_base(train, np.arange(LEVELS + 1.0))
        else:
            field = dynamics.potential_field(network(DIM, width), WASSERSTEIN)
            base = refinement.fit_base(
                key, field, train, gaussian, num_steps=steps, learning_rate=1e-2, weight_decay=0.1
            )
        yield name, base, time.process_time() - since


def energies(seed, names, steps, width, smoke):
    data, _ = images(seed)
    keys = iter(jax.random.split(jax.random.key(seed), 64))
    cut = len(data) * 3 // 4
    train = equally_weighted(noised(next(keys), data[:cut], copies=1 if smoke else 8))
    held_out, own = noised(next(keys), data[cut:]), standard_normal(DIM)
    for name, base, since in bases(next(keys), names, train, steps, width):
        seen = jax.jit(lambda x, base=base: jax.lax.map(base.whiten, x, batch_size=500))
        (z, _), (at, rises) = seen(train.position), seen(held_out)
        plain = jax.vmap(own.log_density)(at) + rises
        start = {"base": name, "method": "base alone", "cpu_seconds": since}
        yield start | {"bits": float(refinement.bits_per_dimension(plain, DIM))}
        for method, log_ratio, seconds in ratios(keys, equally_weighted(z), steps, width, 0 if smoke else 1):
            many = jax.jit(lambda x, f=log_ratio: jax.lax.map(f, x, batch_size=500))
            weigh = partial(refinement.annealed_normaliser, num_samples=500, num_levels=2 if smoke else 200)
            found = jax.jit(partial(weigh, base=own, log_ratio=log_ratio))(next(keys))
            log_density = plain + many(at)
            yield {
                "base": name,
                "method": method,
                "bits": float(refinement.bits_per_dimension(log_density - found.log_mass, DIM)),
                "bits_as_published": float(refinement.bits_per_dimension(log_density, DIM)),
                "log_mass": float(found.log_mass),
                "effective_chains": float(found.effective_sample_size),
                "gain_learned_from": float(jnp.mean(many(z[:1000])) / (DIM * jnp.log(2.0))),
                "cpu_seconds": seconds,
            }


def ratios(keys, data, steps, width, rounds, noise=0.5, weight_decay=0.1, learning_rate=1e-2):
    """Log-ratios of the data to the standard normal, by the three ways to learn them."""
    source = standard_normal(DIM).sample(next(keys), data.position.shape[0])
    many, one = jnp.linspace(0.0, 1.0, 9), jnp.array([0.0, 1.0])
    shared = network(DIM, width)
    learn = partial(
        refinement.fit_ratio, num_steps=steps, learning_rate=learning_rate, weight_decay=weight_decay
    )

    def timed(ratio, grid, bridge, nodes, since):
        log_ratio, params = learn(next(keys), ratio, grid, bridge, num_nodes=nodes)
        return lambda x: log_ratio(params, x), time.process_time() - since

    since = time.process_time()
    field, params = flow_from_normal(next(keys), data, steps, width, rounds)
    bridge = refinement.flow_bridge(field, WASSERSTEIN, params, source, data, many, batch=128, noise=noise)
    yield "ours", *timed(shared, many, bridge, 2, since)
    for name, grid, batch in (("TRE", many, 128), ("one classifier", one, 1024)):
        bridge = refinement.linear_bridge(source, data, grid, batch=batch)
        yield name, *timed(refinement.stepwise(shared, grid), grid, bridge, 1, time.process_time())


def transfer(seed, style, steps, width, components, smoke):
    data, labels = images(seed)
    rng = np.random.default_rng(seed)
    styled = data
    if style == "turned":
        styled = np.rot90(data.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, DIM)
    elif style == "noised":
        styled = data + 4 * rng.normal(size=data.shape)
    # Either style has images of its own, and of each an eighth is held out.
    half, cut = len(data) // 2, len(data) * 3 // 8
    mean = np.concatenate([data[:cut], styled[half : half + cut]]).mean(0)
    _, scale, axes = np.linalg.svd(np.concatenate([data[:cut], styled[half : half + cut]]) - mean, False)
    basis = axes[:components].T / (scale[0] / np.sqrt(2 * cut))
    first, last = ((jnp.asarray(x - mean, jnp.float32) @ basis).astype(jnp.float32) for x in (data, styled))
    source, target = equally_weighted(first[:cut]), equally_weighted(last[half : half + cut])
    fresh, own = first[cut:half], last[half + cut :]
    own = own[: len(fresh)]
    field = dynamics.potential_field(network(components, width), WASSERSTEIN)
    since = time.process_time()
    exact = jax.jit(partial(static.wasserstein, tolerance=1e-3))
    params = refinement.refine(
        jax.random.key(seed),
        field,
        WASSERSTEIN,
        network(components, width),
        refinement.between(source, target),
        pairs=static.semi_coupling(exact(source, target), source, target, jnp.inf),
        rounds=0 if smoke else 1,
        matching_steps=steps // 2,
        refinement_steps=0,
        learning_rate=1e-2,
    )
    seconds = time.process_time() - since
    there = jax.jit(partial(carry, field, WASSERSTEIN))(params, equally_weighted(fresh), time_grid(16))
    arrived, learned_from = there.position[-1], np.asarray(target.position)
    squared = ((np.asarray(arrived)[:, None] - learned_from) ** 2).sum(-1)
    nearest = labels[half : half + cut][squared.argmin(1)]
    distance = jax.jit(lambda a, b: metrics.energy_distance(equally_weighted(a), equally_weighted(b)))
    found, floor = distance(arrived, target.position), distance(own, target.position)
    optimum = exact(equally_weighted(fresh), equally_weighted(own))
    return {
        "cost": float(refinement.transport_cost(there, WASSERSTEIN)),
        "discrete_optimum": float(2 * optimum.value),
        "energy_distance": float(found),
        "floor": float(floor),
        "floor_ratio": float(found / floor),
        "before": float(distance(fresh, target.position)),
        "labels_kept": float(np.mean(nearest == labels[cut:half])),
        "cpu_seconds": seconds,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--examples", nargs="+", default=["energies", "transfer"])
    options.add_argument("--bases", nargs="+", default=["gaussian", "copula", "flow"])
    options.add_argument("--styles", nargs="+", default=["noised", "turned"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--components", type=int, default=16)
    options = options.parse_args()
    if options.smoke:
        options.seeds, options.steps, options.width, options.components = [0], 2, 4, 2
        options.bases, options.styles = ["copula"], ["turned"]
    with report("accuracy/digits", options) as emit:
        if not installed("sklearn"):
            emit(skipped="no scikit-learn, which has the digits; pip install 'wfr-flows[tables]'")
            return
        for seed in options.seeds:
            if "energies" in options.examples:
                for row in energies(seed, options.bases, options.steps, options.width, options.smoke):
                    emit(example="energies", seed=seed, **rounded(row))
            if "transfer" in options.examples:
                for style in options.styles:
                    found = transfer(
                        seed, style, options.steps, options.width, options.components, options.smoke
                    )
                    emit(example="transfer", style=style, seed=seed, **rounded(found))


if __name__ == "__main__":
    main()
