"""Weighted posteriors against the truth: the Bernoulli equation, and mixtures in many dimensions.

Bernoulli: 2048 samples of the prior, weighed by the likelihood. The posterior is known on a grid. Generated
samples and it are compared as densities smoothed by one kernel (`symmetric_kl` of `kernel_density`, and the
same kernel on the grid); beside it the learned density itself, unsmoothed, and the evidence, from the prior
samples and by importance sampling from the model.

Mixtures: the posterior has two components of masses .3 and .7, whatever the dimension; samples come from a
wider law and carry density ratios as weights. Errors of masses and means, the latter in units of the standard
deviation, are of the data, which no generator can know better, and of generated samples.
"""

import time
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.common import parser, report, rounded
from wfr_flows import geodesics, inference, measures, metrics, potentials
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics import Generator, Online
from wfr_flows.measures import Distribution, Particles

GRID = jnp.linspace(-6.0, 7.0, 4001)[:, None]
BANDWIDTH = 0.1
NEGLIGIBLE = -50.0
MIXTURES = {10: (4096, {}), 50: (32_768, geodesics.MANY_DIMENSIONS | {"num_steps": 4})}
"""Dimension to number of samples and options of `geodesics.generator`."""

SMOKE = {"num_pairs": 100, "matching_steps": 300, "refinement_steps": 5, "batch": 64, "num_steps": 4}


def against_grid(
    key: jax.Array, generator: Generator, state: Online, data: inference.Bernoulli, num: int, size: int
) -> dict:
    """Errors after ``num`` observations."""
    truth, log_evidence = data.log_posterior(GRID, num)
    step = GRID[1, 0] - GRID[0, 0]
    nodes = jnp.full(GRID.shape[0], step)
    sample_key, evidence_key = jax.random.split(key)
    generated = jax.jit(generator.sample, static_argnums=2)(sample_key, state.learned, size)

    @jax.jit
    def smooth(measure: Particles) -> jax.Array:
        return jax.lax.map(metrics.kernel_density(measure, BANDWIDTH), GRID, batch_size=64)

    smoothed = smooth(Particles(GRID, truth + jnp.log(step)))
    learned = jax.jit(generator.log_density)(state.learned, GRID)

    def log_joint(x: jax.Array) -> jax.Array:
        return jax.vmap(data.prior.log_density)(x) + data.log_likelihood(x, 0, num)

    estimate, error = inference.log_evidence(evidence_key, generator, state.learned, log_joint)
    apart = jnp.where(truth > NEGLIGIBLE, truth - learned, 0.0)
    return {
        "symmetric_kl": float(metrics.symmetric_kl(smoothed, smooth(generated), nodes)),
        "symmetric_kl_of_data": float(metrics.symmetric_kl(smoothed, smooth(state.particles), nodes)),
        "kl_of_density": float(jnp.sum(jnp.exp(truth) * apart) * step),
        "log_evidence_error": float(estimate - log_evidence),
        "log_evidence_standard_error": float(error),
        "log_evidence_error_of_prior_samples": float(state.log_evidence - log_evidence),
        "effective_sample_size": float(state.effective_sample_size),
    }


def offline(key: jax.Array, generator: Generator, size: int, fresh: int) -> dict:
    """All 50 observations at once."""
    keys = jax.random.split(key, 4)
    data = inference.bernoulli(keys[0])
    prior = data.prior.sample(keys[1], size)
    start = time.perf_counter()
    state = inference.posterior(keys[2], generator, prior, lambda x: data.log_likelihood(x, 0, 50))
    seconds = time.perf_counter() - start
    return {**against_grid(keys[3], generator, state, data, 50, fresh), "seconds": seconds}


def online(key: jax.Array, generator: Generator, size: int, fresh: int, stages: int) -> Iterator[dict]:
    """Five more observations at every stage."""
    keys = iter(jax.random.split(key, 2 * stages + 2))
    data = inference.bernoulli(next(keys), step=0.1, num=5 * stages)
    state = geodesics.begin(data.prior.sample(next(keys), size))
    for stage in range(stages):
        likelihood = partial(data.log_likelihood, first=5 * stage, last=5 * stage + 5)
        start = time.perf_counter()
        state = geodesics.update(next(keys), generator, state, likelihood)
        seconds = time.perf_counter() - start
        errors = against_grid(next(keys), generator, state, data, 5 * stage + 5, fresh)
        yield {"observations": 5 * stage + 5, **errors, "seconds": seconds}


def component_errors(
    measure: Particles, mass: jax.Array, components: list[Distribution], mean: jax.Array, variance: jax.Array
) -> dict:
    """Of the masses and of the means; particles are shared among components by posterior probability."""
    log_density = jnp.stack([jax.vmap(component.log_density)(measure.position) for component in components])
    logs = jnp.log(mass)[:, None] + log_density
    share = jax.nn.softmax(logs, axis=0) * measure.weight
    found = share.sum(axis=1)
    means = (share @ measure.position) / found[:, None]
    return {
        "mass_error": float(jnp.max(jnp.abs(found - mass))),
        "mean_error": float(jnp.max(jnp.abs(means - mean) / jnp.sqrt(variance))),
        "effective_sample_size": float(measure.effective_sample_size),
    }


def mixture(key: jax.Array, dim: int, alpha: float, size: int, fresh: int, learning: dict) -> dict:
    """Two components, .3 and .7."""
    mass = jnp.array([0.3, 0.7])
    mean = jnp.zeros((2, dim)).at[0, 0].set(-2.0).at[1, 0].set(2.0).at[1, 1].set(1.0)
    variance = jnp.stack([jnp.linspace(0.5, 1.0, dim), jnp.linspace(1.0, 0.6, dim)])
    truth = measures.mixture(mass, mean, jax.vmap(jnp.diag)(variance))
    components = [measures.gaussian(m, jnp.diag(v)) for m, v in zip(mean, variance, strict=True)]
    # Wider along the first two coordinates, the same elsewhere: the weights vary, and do not degenerate.
    wide = variance.at[:, :2].mul(2.0)
    proposal = measures.mixture(jnp.array([0.5, 0.5]), mean, jax.vmap(jnp.diag)(wide))
    generator = geodesics.generator(potentials.resnet(dim, width=64), Geometry(alpha), **learning)

    @jax.jit
    def log_ratio(x: jax.Array) -> jax.Array:
        return jax.vmap(truth.log_density)(x) - jax.vmap(proposal.log_density)(x)

    draw_key, learn_key, sample_key = jax.random.split(key, 3)
    drawn = proposal.sample(draw_key, size)
    start = time.perf_counter()
    state = inference.posterior(learn_key, generator, drawn, log_ratio)
    seconds = time.perf_counter() - start
    generated = jax.jit(generator.sample, static_argnums=2)(sample_key, state.learned, fresh)
    errors = {"seconds": seconds}
    for name, measure in (("data", state.particles), ("generated", generated)):
        found = component_errors(measure, mass, components, mean, variance)
        errors |= {f"{key}_of_{name}": value for key, value in found.items()}
    return errors


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--alpha", type=float, default=2.0, help="for Bernoulli, in units of whitened data")
    options.add_argument("--mixture-alpha", type=float, default=10.0)
    options.add_argument("--dims", type=int, nargs="*", choices=list(MIXTURES), default=list(MIXTURES))
    options = options.parse_args()
    learning, size, fresh, stages = {}, 2048, 20_000, 4
    if options.smoke:
        options.seeds, options.dims, learning, size, fresh, stages = [0], [10], SMOKE, 200, 400, 1
    generator = geodesics.generator(potentials.resnet(1, width=32), Geometry(options.alpha), **learning)
    with report("accuracy/posterior", options) as emit:
        for seed in options.seeds:
            keys = jax.random.split(jax.random.key(seed), 2 + len(options.dims))
            common = {"seed": seed, "alpha": options.alpha}
            emit(example="bernoulli offline", **common, **rounded(offline(keys[0], generator, size, fresh)))
            for errors in online(keys[1], generator, size, fresh, stages):
                emit(example="bernoulli online", **common, **rounded(errors))
            for dim, key in zip(options.dims, keys[2:], strict=True):
                samples, how = (size, SMOKE) if options.smoke else MIXTURES[dim]
                errors = mixture(key, dim, options.mixture_alpha, samples, fresh, how)
                emit(
                    example="mixture",
                    dim=dim,
                    num_samples=samples,
                    seed=seed,
                    alpha=options.mixture_alpha,
                    **rounded(errors),
                )


if __name__ == "__main__":
    main()
