"""Learned from samples: what the data's weights, scale and order may and may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, geodesics, measures, metrics, potentials
from wfr_flows.measures import Particles

FIT = {"num_pairs": 300, "matching_steps": 400, "refinement_steps": 30, "batch": 256, "num_steps": 4}
GRID = np.linspace(-7.0, 7.0, 701)[:, None]


@pytest.fixture(scope="module")
def weighted():
    """Draws of a wide law, weighed into ``½ N(-1.5, 1) + ½ N(2, ½)``."""
    with jax.enable_x64(True):
        truth = measures.mixture([0.5, 0.5], [[-1.5], [2.0]], [[[1.0]], [[0.5]]])
        wide = measures.gaussian([0.0], [[9.0]])
        x = wide.spread(jax.random.key(0), 1500).position
        return Particles(x, jax.vmap(truth.log_density)(x) - jax.vmap(wide.log_density)(x))


def learn(source, seed=0, **options):
    """Log-density on the grid."""
    generator = geodesics.generator(potentials.resnet(1, width=8), dynamics.Geometry(2.0), **(FIT | options))
    return jax.jit(generator.log_density)(generator.learn(jax.random.key(seed), source), GRID)


def apart(first, second):
    return metrics.symmetric_kl(first, second, jnp.full(GRID.shape[0], GRID[1, 0] - GRID[0, 0]))


@pytest.mark.slow
def test_resampled_or_permuted_data_say_the_same_within_noise(weighted):
    order = jax.random.permutation(jax.random.key(2), 1500)
    first = learn(weighted)
    between_seeds = apart(first, learn(weighted, seed=1))
    for same in (
        measures.resample(jax.random.key(1), weighted, 1500),
        jax.tree.map(lambda leaf: leaf[order], weighted),
    ):
        assert apart(first, learn(same)) < 3 * between_seeds + 0.01


@pytest.mark.slow
def test_scale_of_the_weights_changes_nothing(weighted):
    few = jax.tree.map(lambda leaf: leaf[::30], weighted)
    heavy = few._replace(log_weight=few.log_weight + 7.0)
    tiny = {"matching_steps": 20, "refinement_steps": 2, "num_steps": 2}
    np.testing.assert_allclose(learn(heavy, **tiny), learn(few, **tiny), rtol=1e-6, atol=1e-6)


def test_without_a_target_density_there_is_matching_alone():
    # A translation by 1.5: at alpha = inf the action is ½ 1.5².
    source, target = (measures.empirical(end) for end in translated())
    seen = []
    params = geodesics.fit(
        jax.random.key(0),
        potentials.resnet(1, width=8),
        dynamics.Geometry(jnp.inf),
        source,
        target,
        **FIT,
        on_chunk=lambda phase, chunk: seen.append(phase),
    )
    assert set(seen) == {"matching"}
    evaluate = geodesics.objective(
        potentials.resnet(1, width=8), dynamics.Geometry(jnp.inf), measures.standard_normal(1).log_density
    )
    costs = jax.jit(evaluate)(params, *translated())
    np.testing.assert_allclose(costs.action, 0.5 * 1.5**2, rtol=0.02)


def translated():
    x = measures.standard_normal(1).spread(jax.random.key(3), 300).position
    return measures.equally_weighted(x + 1.5), measures.equally_weighted(x)


def test_training_goes_on_from_a_start():
    # With nothing to do, a start is what comes back.
    potential = potentials.resnet(1, width=4)
    start = potential.init(jax.random.key(5))
    normal = measures.standard_normal(1)
    nothing = {"matching_steps": 0, "refinement_steps": 0}
    params = geodesics.fit(
        jax.random.key(0), potential, dynamics.Geometry(1.0), normal, normal, start=start, **nothing
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), params, start))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, 1.0, 10.0])
def test_published_example_is_a_geodesic(alpha):
    # Exact d²_SWFR between the densities, from a grid of 2000 points.
    exact = {0.5: 0.89545, 1.0: 1.37588, 10.0: 2.49636}[alpha]
    with jax.enable_x64(False):
        source, target = measures.gaussian_mixture_1d(), measures.standard_normal(1)
        potential, geometry = potentials.resnet(1, width=64), dynamics.Geometry(alpha)
        keys = jax.random.split(jax.random.key(0), 4)
        params = geodesics.fit(keys[0], potential, geometry, source, target)
        evaluate = jax.jit(geodesics.objective(potential, geometry, target.log_density, num_steps=16))
        terms = evaluate(params, source.spread(keys[1], 8192), target.spread(keys[2], 32768))
    assert abs(terms.action / exact - 1) < 0.015
    # The entropy of the mixture is 2.0518: the difference is the KL divergence.
    assert terms.cross_entropy - 2.0518 < 0.01
