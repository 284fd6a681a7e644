"""Every sampler through the one interface, against quadrature; importance weights against closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import geodesics, inference, measures, potentials
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import Distribution, Particles, moments

NUM = 2000


@pytest.fixture(scope="module")
def model():
    """One feature, few rows: a posterior in the plane that is visibly no Gaussian."""
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=12)
        label = np.random.default_rng(1).uniform(size=12) < 1 / (1 + np.exp(-1.5 * x))
        yield inference.logistic_regression(x[:, None], label.astype(int), shape=2.0, rate=1.0)


@pytest.fixture(scope="module")
def truth(model):
    """Log-evidence, mean and standard deviations on a grid."""
    with jax.enable_x64(True):
        weight, log_precision = np.linspace(-12, 14, 601), np.linspace(-8, 4, 401)
        nodes = np.stack(np.meshgrid(weight, log_precision, indexing="ij"), axis=-1).reshape(-1, 2)
        log_density = np.asarray(jax.jit(jax.vmap(model.log_density))(nodes))
        area = (weight[1] - weight[0]) * (log_precision[1] - log_precision[0])
        mean, covariance = map(np.asarray, moments(Particles(jnp.asarray(nodes), jnp.asarray(log_density))))
        return np.logaddexp.reduce(log_density) + np.log(area), mean, np.sqrt(np.diagonal(covariance))


@pytest.fixture(scope="module")
def near(model):
    with jax.enable_x64(True):
        return jax.jit(lambda: inference.laplace(model.log_density, jnp.zeros(2)))()


@pytest.fixture(scope="module")
def plain(model, near):
    """Without adaptation."""
    with jax.enable_x64(True):
        return inference.sample_by_importance(
            jax.random.key(0), model.log_density, near.distribution, NUM, num_rounds=0
        )


def uot_gen():
    return geodesics.generator(
        potentials.resnet(2, width=8),
        Geometry(2.0),
        matching_steps=0,
        refinement_steps=60,
        batch=512,
        num_steps=4,
    )


SIZES = {"pool": 1024, "num_iterations": 60}
SAMPLERS = {
    "importance": partial(inference.sample_by_importance, num_rounds=4),
    "icnn_jko": partial(inference.sample_by_icnn_jko, potential=potentials.icnn(2, width=8, rank=0), **SIZES),
    "variational_jko": partial(
        inference.sample_by_variational_jko, potential=potentials.icnn(2, width=8, rank=0), **SIZES
    ),
    "uot_gen": lambda *given: inference.sample_by_uot_gen(*given, generator=uot_gen(), num_weighted=2000),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_agree_with_quadrature(model, truth, near, plain, name):
    log_evidence, mean, deviation = truth
    found = SAMPLERS[name](jax.random.key(0), model.log_density, near.distribution, NUM)
    particles = found.particles
    assert particles.position.shape == (NUM, 2)
    np.testing.assert_allclose(particles.mass, 1, rtol=1e-10)
    size = particles.effective_sample_size
    assert size > plain.particles.effective_sample_size
    assert abs(found.log_evidence - log_evidence) < 4 * found.standard_error
    np.testing.assert_allclose(found.standard_error, np.sqrt(1 / size - 1 / NUM), rtol=0.2)
    found_mean, covariance = map(np.asarray, moments(particles))
    assert np.all(abs(found_mean - mean) < 4 * deviation / np.sqrt(size))
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), deviation, rtol=0.12)


@pytest.mark.parametrize("minibatch", [False, True])
def test_stein_descent_finds_the_moments(model, truth, near, minibatch):
    options = {"minibatch": lambda key: model.minibatch(key, 12)} if minibatch else {}
    found = inference.sample_by_svgd(
        jax.random.key(0), model.log_density, near.distribution, 100, num_steps=500, **options
    )
    _, mean, deviation = truth
    found_mean, covariance = map(np.asarray, moments(found.particles))
    np.testing.assert_allclose(found_mean, mean, atol=0.1 * deviation.max())
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), deviation, rtol=0.1)
    assert jnp.isnan(found.log_evidence)


def test_laplace_is_exact_for_gaussians():
    covariance = jnp.array([[2.0, 0.1], [0.1, 0.01]])
    law = measures.gaussian(jnp.array([3.0, -1.0]), covariance)
    found = jax.jit(lambda: inference.laplace(lambda x: law.log_density(x) - 7.0, jnp.zeros(2)))()
    assert found.converged
    np.testing.assert_allclose(found.mode, [3, -1], atol=1e-8)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-8)
    np.testing.assert_allclose(found.log_evidence, -7, atol=1e-10)


def test_nested_laplace_is_nearer_than_laplace(model, truth, near):
    log_evidence, _, _ = truth
    found = jax.jit(lambda: inference.nested_laplace(model.log_density, jnp.zeros(2)))()
    assert found.converged
    np.testing.assert_allclose(found.weight.sum(), 1, rtol=1e-12)
    apart = abs(found.log_evidence - log_evidence)
    assert apart < 0.1
    assert apart < abs(near.log_evidence - log_evidence)
    key = jax.random.key(5)
    nested, once = (
        inference.sample_by_importance(key, model.log_density, start.distribution, NUM)
        for start in (found, near)
    )
    assert nested.particles.effective_sample_size > 1.2 * once.particles.effective_sample_size
    assert abs(nested.log_evidence - log_evidence) < 4 * nested.standard_error


def test_nested_laplace_is_exact_for_gaussians():
    mean, covariance = jnp.array([3.0, -1.0, 2.0]), jnp.array([[2, 0.1, 0.5], [0.1, 1, 0.2], [0.5, 0.2, 0.3]])
    law = measures.gaussian(mean, covariance)
    found = jax.jit(lambda: inference.nested_laplace(lambda x: law.log_density(x) - 7.0, jnp.zeros(3)))()
    np.testing.assert_allclose(found.log_evidence, -7, atol=1e-3)
    np.testing.assert_allclose(found.weight @ found.mean, mean, atol=1e-3)
    apart = found.mean - mean
    total = jnp.einsum("k,kij->ij", found.weight, found.covariance) + (found.weight * apart.T) @ apart
    # Wider along the last coordinate by the distance of the nodes, and along what follows it.
    distance = found.mean[1, 2] - found.mean[0, 2]
    along = covariance[:, 2] / covariance[2, 2]
    np.testing.assert_allclose(total, covariance + distance**2 * jnp.outer(along, along), atol=5e-3)
    np.testing.assert_allclose(distance, 0.5 * np.sqrt(0.3), rtol=0.05)
    with pytest.raises(ValueError, match="d >= 2"):
        inference.nested_laplace(lambda x: -(x[0] ** 2), jnp.zeros(1))


def test_laplace_says_where_it_has_no_maximum():
    assert not jax.jit(lambda: inference.laplace(lambda x: x[0] - x[1] ** 2, jnp.zeros(2)).converged)()


def test_weights_are_exact_where_both_densities_are_known():
    law, other = (measures.gaussian(np.array([m]), np.eye(1)) for m in (0.0, 0.5))
    particles = law.sample(jax.random.key(0), 4000)
    ratio = jax.vmap(other.log_density)(particles.position) - jax.vmap(law.log_density)(particles.position)
    found = inference.weigh(particles, ratio + 3.0)
    assert abs(found.log_evidence - 3) < 4 * found.standard_error
    # The variance of p/q is exp(m²) - 1.
    np.testing.assert_allclose(found.standard_error, np.sqrt((np.exp(0.25) - 1) / 4000), rtol=0.1)


def test_a_law_with_no_mass_at_the_samples_is_told():
    law = measures.standard_normal(1)
    nothing = inference.weigh(law.sample(jax.random.key(0), 5), jnp.full(5, -jnp.inf))
    assert nothing.log_evidence == -jnp.inf
    assert not jnp.isnan(nothing.particles.log_weight).any()
    with pytest.raises(ValueError, match="nearer to where it has mass"):
        inference.sample_by_importance(jax.random.key(0), lambda x: -jnp.inf * jnp.ones_like(x[0]), law, 5)


def test_adaptation_finds_a_law_that_is_far_off():
    law = measures.gaussian(jnp.array([8.0, 0.0]), jnp.array([[2.0, 0.9], [0.9, 1.0]]))
    start = measures.standard_normal(2)
    found = jax.jit(lambda key: inference.adapted(key, law.log_density, start, 2000, 12).spread(key, 4000))(
        jax.random.key(0)
    )
    mean, covariance = moments(found)
    np.testing.assert_allclose(mean, [8, 0], atol=0.15)
    # A tenth of it is four times as wide.
    np.testing.assert_allclose(covariance / 1.3, [[2.0, 0.9], [0.9, 1.0]], atol=0.2)


def test_a_start_that_is_too_far_off_is_refused(model):
    sharp = measures.gaussian(jnp.array([40.0, 9.0]), 1e-4 * jnp.eye(2))
    with pytest.raises(ValueError, match="effective sample size"):
        inference.sample_by_uot_gen(jax.random.key(0), model.log_density, sharp, 100, num_weighted=500)


SAMPLE = measures.standard_normal(2).sample


@pytest.mark.parametrize("name", [*SAMPLERS, "svgd"])
@pytest.mark.parametrize(
    ("start", "num", "message"),
    [
        (Distribution(2, SAMPLE, None, SAMPLE), 100, "start has no density"),
        (measures.standard_normal(3), 100, r"does not take a point \[3\] of start"),
        (measures.standard_normal(2), 0, "num_samples is 0"),
    ],
)
def test_what_does_not_fit_is_refused(model, name, start, num, message):
    sampler = {**SAMPLERS, "svgd": inference.sample_by_svgd}[name]
    with pytest.raises(ValueError, match=message) as refused:
        sampler(jax.random.key(0), model.log_density, start, num)
    assert "\n" not in str(refused.value)


def test_a_density_of_many_points_is_refused(model):
    several = jax.vmap(model.log_density)
    with pytest.raises(ValueError, match="log_density"):
        inference.sample_by_importance(jax.random.key(0), several, measures.standard_normal(2), 10)


def test_laplace_in_any_unit_of_the_parameters():
    """A Gaussian whose deviations differ by twelve orders of magnitude, in single precision."""
    with jax.enable_x64(False):
        factor = np.diag([1e6, 1e-6, 1.0]) @ np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.7, 1.0]])
        inverse, mode = jnp.asarray(np.linalg.inv(factor)), jnp.array([2e6, -3e-6, 1.0])

        def log_density(x):
            return -0.5 * jnp.sum((inverse @ (x - mode)) ** 2)

        found = jax.jit(lambda: inference.laplace(log_density, jnp.zeros(3)))()
        assert found.converged
        np.testing.assert_allclose(found.mode, mode, rtol=1e-4)
        unit, expected = np.array([1e6, 1e-6, 1.0]), factor @ factor.T
        np.testing.assert_allclose(
            found.covariance / unit / unit[:, None], expected / unit / unit[:, None], atol=1e-3
        )
        np.testing.assert_allclose(found.log_evidence, 1.5 * np.log(2 * np.pi), rtol=1e-4)


def test_a_regression_with_a_feature_in_millions():
    """Both approximations in single precision agree with double precision."""
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 2))
    label = (features @ [1.0, -1.0] + 0.3 * random.logistic(size=100) > 0).astype(int)

    def found():
        model = inference.logistic_regression(features * [1e6, 1.0], label)
        start = jnp.zeros(model.dim)
        return inference.laplace(model.log_density, start), inference.nested_laplace(model.log_density, start)

    exact = jax.jit(found)()
    with jax.enable_x64(False):
        for single, double in zip(jax.jit(found)(), exact, strict=True):
            assert single.converged
            np.testing.assert_allclose(single.log_evidence, double.log_evidence, atol=1e-3)
