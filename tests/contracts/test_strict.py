"""Strict types and shapes: nothing relies on JAX's promotions, in either precision. Traced, not run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import dynamics, measures, metrics, numerics, potentials, training
from wfr_flows.dynamics import Geometry
from wfr_flows.measures.particles import centre_and_scale

KEY = jax.random.key(0)
POINTS = np.random.default_rng(0).normal(size=(12, 2))


def cloud(size=12):
    return measures.particles(POINTS[:size], np.arange(1.0, size + 1))


def normal():
    return measures.gaussian(jnp.zeros(2), jnp.eye(2))


def steps():
    return jnp.linspace(0.1, 2.0, 5)


def at(distribution):
    """All that a distribution does."""
    found = distribution.sample(KEY, 5), distribution.spread(KEY, 5)
    known = distribution.log_density is not None
    return found, distribution.log_density(jnp.zeros(distribution.dim)) if known else None


def sharing(function, *options):
    weight = jnp.full(5, 0.2)
    return jax.grad(lambda v: function(*options, v, v, weight_p=weight, weight_q=weight))(-steps())


def divergence(build):
    functions = [part for part in build() if callable(part)]
    return [part(steps()) for part in functions], sharing(numerics.lower_bound, build())


def log_det(order):
    return order(lambda scale: numerics.log_det(scale * jnp.eye(3)))(jnp.ones(()))


def components():
    found, points = measures.principal_components(cloud(), 1), cloud().position
    return found.scores(points), found.moved(points, jnp.ones((2, 12, 1)))


def whitened():
    found, points = measures.whitening(cloud()), cloud().position
    density = found.log_density_of(normal().log_density)(points[0])
    return found(points), found.back(points), found(points[0]), found.back(points[0]), found.log_det, density


def net():
    return potentials.mlp(2, width=4)


def field_of(geometry):
    return dynamics.potential_field(net(), geometry)


def flow(alpha, spherical=True, **options):
    params, grid = net().init(KEY), dynamics.time_grid(3)
    return dynamics.flow(net(), Geometry(alpha, spherical), params, cloud(), grid, **options)


def carried(alpha, **options):
    field, grid = field_of(Geometry(alpha)), dynamics.time_grid(3)
    return dynamics.carry(field, Geometry(alpha), field.init(KEY), cloud(), grid, **options)


def rates(field):
    return field.rates(field.init(KEY), jnp.ones(()) / 2, jnp.ones(2))


def argument(function):
    """The function of a geometry that is an argument, its length scale traced."""
    return lambda: jax.eval_shape(function, Geometry(1.3))


def gaussians():
    return jnp.zeros(2), jnp.eye(2), jnp.ones(2), 2 * jnp.eye(2)


CASES = {
    "blocks": lambda: numerics.in_blocks(lambda x: x.sum(1), cloud().position, 1 << 21),
    "squared distance": lambda: numerics.squared_distance(cloud().position, cloud(5).position),
    "squared distance, many": lambda: numerics.squared_distance(jnp.ones((3, 40)), jnp.ones((2, 40))),
    "log-determinant": lambda: log_det(lambda function: function),
    "its slope": lambda: log_det(jax.grad),
    "its curvature": lambda: log_det(jax.hessian),
    "stochastic": lambda: numerics.stochastic_log_det(
        lambda z: 2 * z, numerics.signs(KEY, 4, 3), num_steps=2
    ),
    "quadrature": lambda: [numerics.simpson_weights(jnp.linspace(0, 1, num)) for num in (2, 3, 6, 7)],
    "draws": lambda: numerics.inverse_distribution(numerics.running_total(steps()), jnp.full((3, 2), 0.5)),
    "lattice": lambda: [numerics.lattice(KEY, 7, dim) for dim in (1, 3, 10)],
    "donsker varadhan": lambda: (
        sharing(numerics.donsker_varadhan),
        numerics.donsker_varadhan(steps(), steps()),
    ),
    "lower bound": lambda: numerics.lower_bound(numerics.kl(), steps(), steps()),
    **{name: partial(divergence, getattr(numerics, name)) for name in ("kl", "reverse_kl", "chi_squared")},
    "jensen_shannon": lambda: divergence(numerics.jensen_shannon),
    **{f"alpha {a}": partial(divergence, partial(numerics.alpha_divergence, a)) for a in (0.5, 2.0, 3.0)},
    **{f"entropy {m}": partial(divergence, partial(numerics.generalized_entropy, m)) for m in (1.5, 3.0)},
    "particles": lambda: (cloud().mass, cloud().weight, cloud().effective_sample_size, cloud().normalise()),
    "traced particles": lambda: jax.eval_shape(measures.particles, POINTS, POINTS[:, 0]),
    "moments": lambda: (measures.moments(cloud()), centre_and_scale(cloud())),
    "with moments": lambda: measures.with_moments(cloud(), jnp.zeros(2), jnp.eye(2)),
    "resample": lambda: (measures.resample(KEY, cloud(), 5), measures.redrawing(cloud())(KEY, 5)),
    "thinned": lambda: (measures.thinned(KEY, cloud(), 5), measures.padded(cloud(), 20)),
    "components": components,
    "gaussian": lambda: at(normal()),
    "standard normal": lambda: at(measures.standard_normal(2)),
    "mixture": lambda: at(measures.mixture([0.5, 0.5], np.zeros((2, 2)), np.stack([np.eye(2)] * 2))),
    "empirical": lambda: at(measures.empirical(cloud())),
    "ends": lambda: measures.spread_ends(normal(), measures.standard_normal(2), 5)(KEY),
    "ornstein uhlenbeck": lambda: at(measures.ornstein_uhlenbeck(jnp.ones(2), 2 * jnp.eye(2), 0.5)),
    "box": lambda: at(measures.uniform_box(-jnp.ones(2), jnp.ones(2))),
    "ball": lambda: at(measures.uniform_ball(jnp.zeros(2), 2.0)),
    "whitening": whitened,
    "barenblatt": lambda: at(measures.barenblatt(2, 2.0, 0.5)),
    **{
        name: partial(lambda build: at(build()), getattr(measures, name))
        for name in (
            "checkerboard",
            "circles",
            "eight_gaussians",
            "moons",
            "pinwheel",
            "swissroll",
            "two_spirals",
        )
    },
    "energy distance": lambda: jax.grad(
        lambda x: metrics.energy_distance(cloud()._replace(position=x), cloud(5))
    )(cloud().position),
    "mmd": lambda: [metrics.mmd(cloud(), cloud(5), scale=2.0, unbiased=which) for which in (True, False)],
    "unbiased": lambda: metrics.energy_distance(cloud(), cloud(5), unbiased=True),
    "sliced": lambda: metrics.sliced_wasserstein(KEY, cloud(), cloud(5), num_projections=4),
    "sinkhorn": lambda: metrics.sinkhorn_divergence(cloud(), cloud(5)),
    "kernel density": lambda: metrics.kernel_density(cloud())(jnp.zeros(2)),
    "kernel of a width": lambda: [
        metrics.kernel_density(cloud(), b)(jnp.zeros(2)) for b in (0.5, [0.5, 1.0])
    ],
    "symmetric kl": lambda: metrics.symmetric_kl(-steps(), -2 * steps(), jnp.full(5, 0.2)),
    "sampled kl": lambda: metrics.sampled_symmetric_kl(cloud(), cloud(5), lambda x: x.sum(1)),
    "gaussian kl": lambda: metrics.gaussian_symmetric_kl(*gaussians()),
    "straightness": lambda: metrics.straightness(jnp.ones((3, 12, 2)), cloud().weight),
    "momentum": lambda: metrics.momentum_variation(jnp.ones((3, 12, 2)), jnp.zeros((3, 12))),
    "slope": lambda: metrics.slope_error(steps(), steps(), 2.0),
    "geometry": lambda: [
        Geometry(alpha).energy(cloud().position, cloud().log_weight)
        for alpha in (1.3, np.float64(2.0), np.inf)
    ],
    "traced geometry": argument(lambda geometry: geometry.energy(cloud().position, cloud().log_weight)),
    "flow": lambda: [flow(1.3), flow(np.inf), flow(1.3, spherical=False), flow(1.3, log_det=False)],
    "traced flow": argument(lambda geometry: flow(geometry.alpha)),
    "adaptive flow": lambda: flow(1.3, tolerance=1e-3),
    "carry": lambda: [
        carried(1.3),
        carried(np.inf),
        carried(1.3, log_det=True),
        carried(1.3, tolerance=1e-3),
    ],
    "traced carry": argument(lambda geometry: carried(geometry.alpha)),
    "time grid": lambda: dynamics.time_grid(3, reverse=True),
    "free field": lambda: rates(dynamics.free_field(2, width=4)),
    "windowed": lambda: rates(dynamics.windowed(field_of(Geometry(1.3)), jnp.array([0.0, 1.0, 2.0]))),
}

CONTEXTS = {
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "types": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("case", CASES)
def test_no_promotion_is_implicit(case, context, double):
    with jax.enable_x64(double), CONTEXTS[context]():
        jax.eval_shape(CASES[case])


def test_compiled_functions_move_nothing_between_host_and_device():
    field, grid = field_of(Geometry(1.3)), dynamics.time_grid(2)
    method = training.gradient_method(lambda params, key, batch: (params @ batch, ()), optax.sgd(0.1))

    @jax.jit
    def everything(geometry, params, a, b):
        measure = measures.particles(a.position, a.weight)
        path = dynamics.flow(net(), geometry, params, measure, grid)
        return path, metrics.energy_distance(path.at(-1), b), measures.resample(KEY, a, 5)

    shown = jax.device_put((Geometry(1.3), field.init(KEY), cloud(), cloud(5)))
    state, key = method.init(jnp.zeros(2)), jax.random.key(0)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(everything(*shown))
        # Batches from the host are put on the device explicitly.
        for sample in (lambda key: jax.random.normal(key, (2,)), [np.ones(2)]):
            training.run(method, key, state, sample, 3, chunk_size=2)
