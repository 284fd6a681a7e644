"""Logistic regression posteriors against scipy, finite differences and quadrature."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.helpers import numerical_gradient
from wfr_flows import inference
from wfr_flows.measures import Particles

FEATURES = np.random.default_rng(0).normal(size=(7, 3))
LABEL = np.array([0, 1, 1, 0, 1, 0, 1])
THETA = np.array([0.3, -0.7, 1.1, 0.4])


@pytest.fixture(params=[False, True], ids=["no intercept", "intercept"])
def model(request):
    return inference.logistic_regression(FEATURES, LABEL, intercept=request.param, shape=2.5, rate=0.7)


def test_the_prior_is_that_of_scipy_with_the_jacobian():
    model = inference.logistic_regression(FEATURES, LABEL, shape=2.5, rate=0.7)
    precision = np.exp(THETA[3])
    expected = scipy.stats.gamma.logpdf(precision, 2.5, scale=1 / 0.7) + THETA[3]
    expected += scipy.stats.norm.logpdf(THETA[:3], scale=precision**-0.5).sum()
    np.testing.assert_allclose(model.log_prior(THETA), expected, rtol=1e-12)


def test_the_likelihood_is_that_of_bernoulli_trials():
    model = inference.logistic_regression(FEATURES, LABEL)
    probability = scipy.special.expit(FEATURES @ THETA[:3])
    expected = scipy.stats.bernoulli.logpmf(LABEL, probability).sum()
    np.testing.assert_allclose(model.log_likelihood(THETA), expected, rtol=1e-12)
    np.testing.assert_allclose(model.log_density(THETA), expected + model.log_prior(THETA), rtol=1e-12)


def test_rows_in_blocks_are_the_same_rows(monkeypatch, model):
    theta = jnp.linspace(-1, 1, model.dim)

    def derivatives():
        # Of a function of its own, so that it is traced anew.
        both = jax.value_and_grad(lambda theta: model.log_likelihood(theta))  # noqa: PLW0108
        return *jax.jit(both)(theta), jax.jit(jax.jacfwd(lambda theta: both(theta)[1]))(theta)

    value, slope, curvature = derivatives()
    # The module, which the function of its name hides as an attribute of the package.
    monkeypatch.setattr(sys.modules["wfr_flows.inference.logistic_regression"], "_ROWS", 3)
    blocked = derivatives()
    np.testing.assert_allclose(blocked[0], value, rtol=1e-12)
    np.testing.assert_allclose(blocked[1], slope, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(blocked[2], curvature, rtol=1e-10, atol=1e-12)


def test_labels_of_both_conventions_are_the_same():
    one, other = (inference.logistic_regression(FEATURES, label) for label in (LABEL, 2 * LABEL - 1))
    np.testing.assert_array_equal(one.label, other.label)


def test_an_intercept_is_a_constant_feature():
    ones = np.concatenate([FEATURES, np.ones((7, 1))], axis=1)
    one = inference.logistic_regression(FEATURES, LABEL, intercept=True)
    other = inference.logistic_regression(ones, LABEL)
    theta = jnp.array([0.3, -0.7, 1.1, 0.9, 0.4])
    assert one.dim == other.dim == 5
    np.testing.assert_allclose(one.log_density(theta), other.log_density(theta), rtol=1e-12)


def test_the_gradient_is_that_of_finite_differences(model):
    theta = np.random.default_rng(1).normal(size=model.dim)
    value_and_gradient = jax.jit(jax.value_and_grad(model.log_density))
    expected = numerical_gradient(lambda theta: value_and_gradient(theta)[0], theta, 1e-3)
    np.testing.assert_allclose(value_and_gradient(theta)[1], expected, rtol=1e-8, atol=1e-9)


def test_minibatches_have_the_mean_of_all_rows(model):
    theta = jnp.linspace(-1, 1, model.dim)
    expected = jax.jit(model.log_density)(theta)
    whole = jax.jit(lambda key: model.minibatch(key, 7)(theta))(jax.random.key(0))
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    keys = jax.random.split(jax.random.key(1), 4000)
    values = np.asarray(jax.jit(jax.vmap(lambda key: model.minibatch(key, 2)(theta)))(keys))
    error = values.std() / np.sqrt(4000)
    assert error > 0
    assert abs(values.mean() - expected) < 4 * error


@pytest.mark.parametrize("size", [0, 8])
def test_minibatches_of_impossible_size_are_refused(model, size):
    with pytest.raises(ValueError, match="from 1 to 7"):
        model.minibatch(jax.random.key(0), size)


def test_prior_samples_have_the_moments_of_the_prior():
    model = inference.logistic_regression(FEATURES, LABEL, shape=2.5, rate=0.7)
    drawn = model.prior.sample(jax.random.key(0), 20_000).position
    spread = np.sqrt(scipy.special.polygamma(1, 2.5) / 20_000)
    assert abs(drawn[:, 3].mean() - scipy.special.digamma(2.5) + np.log(0.7)) < 4 * spread
    standard = drawn[:, :3] * jnp.exp(0.5 * drawn[:, 3:])
    assert scipy.stats.kstest(np.asarray(standard[:, 0]), "norm").pvalue > 1e-3
    np.testing.assert_allclose(np.cov(standard.T), np.eye(3), atol=0.05)


def test_it_is_a_tree_that_jit_and_vmap_accept(model):
    theta = jnp.linspace(-1, 1, model.dim)
    several = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), model)
    values = jax.jit(jax.vmap(lambda model: model.log_density(theta)))(several)
    np.testing.assert_allclose(values, jax.jit(model.log_density)(theta), rtol=1e-12)
    with jax.enable_x64(False):
        assert inference.logistic_regression(FEATURES, LABEL).features.dtype == jnp.float32


def test_predictions_are_weighted_means(model):
    position = jax.random.normal(jax.random.key(0), (3, model.dim))
    particles = Particles(position, jnp.log(jnp.array([1.0, 3.0, 0.0])))
    rows = np.concatenate([FEATURES, np.ones((7, model.dim - 4))], axis=1)
    each = scipy.special.expit(rows @ np.asarray(position[:, :-1]).T)
    expected = 0.25 * each[:, 0] + 0.75 * each[:, 1]
    np.testing.assert_allclose(model.predict(particles, model.features), expected, rtol=1e-12)


def test_predictions_of_other_shapes_are_refused(model):
    particles = Particles(jnp.zeros((2, model.dim)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"give \[m, 3\]"):
        model.predict(particles, jnp.zeros((5, 4)))
    with pytest.raises(ValueError, match=f"give {model.dim}"):
        model.predict(Particles(jnp.zeros((2, 9)), jnp.zeros(2)), model.features)


def test_scores_are_accuracy_and_mean_log_likelihood():
    found = inference.score(jnp.array([0.9, 0.4, 0.2, 0.6]), np.array([1, 1, -1, -1]))
    np.testing.assert_allclose(found.accuracy, 0.5)
    np.testing.assert_allclose(found.log_likelihood, np.log([0.9, 0.4, 0.8, 0.4]).mean())
    assert jnp.isfinite(inference.score(jnp.array([1.0]), np.array([0])).log_likelihood)
    with pytest.raises(ValueError, match="one per probability"):
        inference.score(jnp.array([0.5]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("features", "label", "options", "message"),
    [
        (FEATURES, LABEL + 1, {}, "give 0 and 1, or -1 and 1"),
        (FEATURES, np.arange(7) - 1, {}, "and more"),
        (FEATURES, np.full(7, np.nan), {}, "give 0 and 1, or -1 and 1"),
        (FEATURES, np.ones(7), {}, "rows of both classes"),
        (FEATURES, LABEL[:6], {}, "one per row of features"),
        (FEATURES, LABEL[:, None], {}, "one per row of features"),
        (FEATURES[:, 0], LABEL, {}, r"give real numbers \[n, d\]"),
        (FEATURES[:0], LABEL[:0], {}, "n, d >= 1"),
        (FEATURES.astype(str), LABEL, {}, "give real numbers"),
        (np.where(np.arange(21).reshape(7, 3) == 4, np.nan, FEATURES), LABEL, {}, "first: row 1"),
        (FEATURES, LABEL, {"shape": 0.0}, "shape is 0.0"),
        (FEATURES, LABEL, {"rate": -1.0}, "rate is -1.0"),
        (FEATURES, LABEL, {"rate": float("nan")}, "rate is nan"),
        (FEATURES, LABEL, {"shape": float("inf")}, "finite number"),
    ],
)
def test_what_is_no_regression_is_refused(features, label, options, message):
    with pytest.raises(ValueError, match=message) as refused:
        inference.logistic_regression(features, label, **options)
    assert "\n" not in str(refused.value)
