"""Posteriors against conjugate closed forms and quadrature, offline and in turns."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wfr_flows import dynamics, geodesics, inference, measures, potentials
from wfr_flows.measures import Particles

NOISE, OBSERVED = 0.7, 1.5
# Of the prior N(0, 1) after one observation.
VARIANCE = 1 / (1 + NOISE**-2)
MEAN = VARIANCE * OBSERVED / NOISE**2
LOG_EVIDENCE = -0.5 * OBSERVED**2 / (1 + NOISE**2) - 0.5 * np.log(2 * np.pi * (1 + NOISE**2))


def log_likelihood(x, observed=OBSERVED):
    return -0.5 * ((x[:, 0] - observed) / NOISE) ** 2 - np.log(NOISE) - 0.5 * np.log(2 * np.pi)


@pytest.fixture(scope="module")
def generator():
    return geodesics.generator(
        potentials.resnet(1, width=8),
        dynamics.Geometry(2.0),
        num_pairs=100,
        matching_steps=300,
        refinement_steps=30,
        batch=128,
        num_steps=4,
    )


@pytest.fixture(scope="module")
def learned(generator):
    with jax.enable_x64(True):
        prior = measures.standard_normal(1).sample(jax.random.key(0), 2000)
        return inference.posterior(jax.random.key(1), generator, prior, log_likelihood)


def test_weights_evidence_and_size_are_those_of_the_likelihood(learned):
    error = np.sqrt(1 / learned.effective_sample_size - 1 / 2000)
    assert abs(learned.log_evidence - LOG_EVIDENCE) < 4 * error
    weight = learned.particles.weight
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(learned.effective_sample_size, 1 / jnp.sum(weight**2), rtol=1e-10)
    mean = jnp.sum(weight * learned.particles.position[:, 0])
    assert abs(mean - MEAN) < 4 * np.sqrt(VARIANCE / learned.effective_sample_size)


def test_samples_and_density_are_one_measure_near_the_posterior(generator, learned):
    x = np.linspace(-4, 6, 2001)[:, None]
    density = np.exp(jax.jit(generator.log_density)(learned.learned, x))
    mass, mean = np.sum(density) * 0.005, np.sum(density * x[:, 0]) * 0.005
    np.testing.assert_allclose(mass, 1, atol=0.03)
    samples = jax.jit(generator.sample, static_argnums=2)(jax.random.key(2), learned.learned, 4000)
    drawn = np.sum(np.asarray(samples.weight) * np.asarray(samples.position)[:, 0])
    spread = np.sqrt(VARIANCE / samples.effective_sample_size)
    assert abs(drawn - mean / mass) < 5 * spread
    truth = np.exp(-0.5 * (x[:, 0] - MEAN) ** 2 / VARIANCE) / np.sqrt(2 * np.pi * VARIANCE)
    assert 0.5 * np.sum(np.abs(density - truth)) * 0.005 < 0.1


def test_importance_sampling_from_the_model_sharpens_the_evidence(generator, learned):
    def log_joint(x):
        return log_likelihood(x) - 0.5 * x[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)

    estimate, error = jax.jit(
        lambda key, learned: inference.log_evidence(key, generator, learned, log_joint)
    )(jax.random.key(3), learned.learned)
    # Beside the noise of the samples that of the model's normaliser.
    assert abs(estimate - LOG_EVIDENCE) < 4 * error + 0.01
    assert error < 0.01


def test_two_turns_give_what_one_does(generator, learned):
    # The conjugate answer is that of both observations together.
    observed = 0.9
    second = partial(log_likelihood, observed=observed)
    state = geodesics.update(jax.random.key(4), generator, learned, second, num_samples=2000)
    # As many as in the first turn, so that the programs are the same.
    assert state.particles.log_weight.size == 2000
    variance = 1 / (1 + 2 * NOISE**-2)
    mean = jnp.sum(state.particles.weight * state.particles.position[:, 0])
    expected = variance * (OBSERVED + observed) / NOISE**2
    # Beside the noise of the samples the error of a small model.
    assert abs(mean - expected) < 5 * np.sqrt(variance / state.effective_sample_size) + 0.05
    pair, covariance = np.array([OBSERVED, observed]), np.ones((2, 2)) + NOISE**2 * np.eye(2)
    log_evidence = scipy.stats.multivariate_normal.logpdf(pair, np.zeros(2), covariance)
    assert abs(state.log_evidence - log_evidence) < 0.15


def test_resampling_only_when_asked(generator):
    prior = measures.standard_normal(1).sample(jax.random.key(0), 50)
    # A generator that learns nothing, and returns what it was given.
    learn = generator._replace(learn=lambda key, source, /, *, start=None: source)
    values = log_likelihood(prior.position)
    kept = geodesics.update(jax.random.key(0), learn, geodesics.begin(prior), values)
    np.testing.assert_array_equal(kept.learned.position, prior.position)
    drawn = geodesics.update(jax.random.key(0), learn, geodesics.begin(prior), values, resampled=True)
    np.testing.assert_allclose(drawn.learned.weight, 1 / 50)
    assert drawn.effective_sample_size == kept.effective_sample_size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (jnp.zeros(3), "shape"),
        (jnp.full(4, jnp.nan), "NaN"),
        (jnp.full(4, -jnp.inf), "wherever a particle has weight"),
    ],
)
def test_impossible_likelihoods_are_refused(generator, values, message):
    prior = Particles(jnp.zeros((4, 1)), jnp.zeros(4))
    with pytest.raises(ValueError, match=message):
        inference.posterior(jax.random.key(0), generator, prior, values)


def test_the_bernoulli_example_solves_its_equation():
    data = inference.bernoulli(jax.random.key(0), step=0.5, num=6)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, v, _: v - v**3),
        diffrax.Tsit5(),
        0.0,
        3.0,
        dt0=None,
        y0=jnp.asarray(0.3),
        saveat=diffrax.SaveAt(ts=data.time),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10),
        throw=False,
    ).ys
    expected = jax.scipy.stats.norm.logpdf(data.observed, solution, 0.4).sum()
    found = data.log_likelihood(jnp.array([[0.3]]), 0, 6)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_bernoulli_posterior_is_normalised_and_its_turns_add_up():
    data = inference.bernoulli(jax.random.key(0))
    x = np.linspace(-6, 7, 2001)[:, None]

    @jax.jit
    def parts(x):
        spans = ((0, 20), (20, 50), (0, 50))
        return data.log_posterior(x, 50)[0], *(data.log_likelihood(x, *span) for span in spans)

    log_density, first, second, whole = map(np.asarray, parts(x))
    np.testing.assert_allclose(np.sum(np.exp(log_density)) * 0.0065, 1, rtol=1e-10)
    np.testing.assert_allclose(first + second, whole, rtol=1e-10)
