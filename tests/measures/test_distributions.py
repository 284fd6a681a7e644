import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wfr_flows.measures import (
    BUILTIN,
    Particles,
    eight_gaussians,
    empirical,
    gaussian,
    gaussian_mixture_1d,
    mixture,
    moments,
    moons,
    standard_normal,
)


def _covariance(dim):
    factor = np.random.default_rng(dim).normal(size=(dim, dim))
    return factor @ factor.T + 0.3 * np.eye(dim)


def _batched(law):
    return jax.jit(jax.vmap(law.log_density))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_gaussian_log_density_equals_scipy(dim):
    mean, covariance = np.linspace(-1, 1, dim), _covariance(dim)
    x = np.random.default_rng(0).normal(size=(6, dim)) * 3
    expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
    np.testing.assert_allclose(_batched(gaussian(mean, covariance))(x), expected, rtol=1e-11)


def test_standard_normal_far_out_does_not_underflow():
    np.testing.assert_allclose(
        standard_normal(1).log_density(jnp.array([60.0])), scipy.stats.norm.logpdf(60.0), rtol=1e-14
    )


def test_mixture_log_density_equals_scipy():
    weight, mean = np.array([1.0, 2.0, 0.5]), np.array([[-2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    covariance = np.stack([_covariance(2), np.eye(2), 0.1 * np.eye(2)])
    x = np.random.default_rng(0).normal(size=(10, 2)) * 2
    density = sum(
        w / weight.sum() * scipy.stats.multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(weight, mean, covariance, strict=True)
    )
    np.testing.assert_allclose(_batched(mixture(weight, mean, covariance))(x), np.log(density), rtol=1e-11)


def test_a_component_of_weight_zero_does_not_count():
    law = mixture([1.0, 0.0], [[0.0], [5.0]], np.ones((2, 1, 1)))
    np.testing.assert_allclose(law.log_density(jnp.zeros(1)), scipy.stats.norm.logpdf(0.0), rtol=1e-13)
    assert (law.sample(jax.random.key(0), 500).position < 4.5).all()


@pytest.mark.parametrize("build", [gaussian_mixture_1d, lambda: gaussian([0.7], [[2.0]])])
def test_density_on_the_line_has_integral_one(build):
    x = np.linspace(-15, 15, 2001)
    # The trapezoidal rule is spectrally accurate for a density that dies at both ends.
    np.testing.assert_allclose(np.exp(_batched(build())(x[:, None])).sum() * (x[1] - x[0]), 1.0, rtol=1e-12)


def test_density_in_the_plane_has_integral_one():
    x = np.linspace(-7, 7, 201)
    grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(
        np.exp(_batched(eight_gaussians())(grid)).sum() * (x[1] - x[0]) ** 2, 1.0, rtol=1e-8
    )


@pytest.mark.parametrize("law", ["gaussian", "mixture", "eight-gaussians"], ids=lambda name: name)
def test_sample_moments_within_four_standard_errors(law, key):
    mean, covariance = np.array([0.5, -2.0]), _covariance(2)
    distribution = gaussian(mean, covariance) if law == "gaussian" else BUILTIN[law]()
    if law == "mixture":
        # Law of total variance: 1 within, 9 - 1 between.
        mean, covariance = np.array([1.0]), np.array([[9.0]])
    if law == "eight-gaussians":
        mean, covariance = np.zeros(2), (4.0 + 0.125) * np.eye(2)
    num = 20_000
    drawn = distribution.sample(key, num)
    assert drawn.position.shape == (num, distribution.dim)
    np.testing.assert_allclose(drawn.mass, 1.0, rtol=1e-10)
    x = np.asarray(drawn.position)
    assert (abs(x.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(covariance) / num)).all()
    product = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert (abs(product.mean(axis=0) - covariance) < 4 * product.std(axis=0) / np.sqrt(num)).all()


def test_gaussian_samples_follow_the_law_on_the_line(key):
    x = np.asarray(gaussian_mixture_1d().sample(key, 4000).position[:, 0])

    def cdf(t):
        return (scipy.stats.norm.cdf(t + 3) + 2 * scipy.stats.norm.cdf(t - 3)) / 3

    assert scipy.stats.kstest(x, cdf).pvalue > 1e-4


def test_moons_lie_on_two_half_circles(key):
    law = moons()
    assert law.log_density is None
    x = np.asarray(law.sample(key, 2000).position)
    centres = np.array([[-1.0, -0.2], [1.0, 0.8]])
    radius = np.sqrt(((x[:, None, :] - centres) ** 2).sum(axis=-1))
    # Noise of standard deviation 0.2 about radius 2, about one centre or the other.
    assert (abs(radius - 2).min(axis=1) < 1.2).all()
    assert abs(radius - 2).min(axis=1).mean() < 0.25


def test_different_keys_give_different_samples():
    law = standard_normal(2)
    first, second = (law.sample(jax.random.key(i), 3).position for i in range(2))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("dim", [0, -1])
def test_standard_normal_refuses_dimensions_below_one(dim):
    with pytest.raises(ValueError, match="dim"):
        standard_normal(dim)


@pytest.mark.parametrize(
    ("weight", "mean", "covariance"),
    [
        (np.ones(2), np.zeros((3, 1)), np.ones((3, 1, 1))),
        (np.ones(2), np.zeros(2), np.ones((2, 1, 1))),
        (np.ones(2), np.zeros((2, 2)), np.ones((2, 2))),
        (np.ones((2, 1)), np.zeros((2, 2)), np.ones((2, 2, 2))),
    ],
)
def test_mixture_refuses_shapes_that_do_not_fit(weight, mean, covariance):
    with pytest.raises(ValueError, match="weight.*mean.*covariance"):
        mixture(weight, mean, covariance)


def test_spread_has_the_moments_and_the_components_of_the_law():
    law = mixture([0.3, 0.7], [[-2.0, 1.0], [3.0, 0.0]], np.stack([_covariance(2), np.eye(2)]))
    even = law.spread(jax.random.key(0), 2000)
    assert even.log_weight.size == 2000
    np.testing.assert_allclose(even.mass, 1)
    mean, covariance = moments(even)
    np.testing.assert_allclose(mean, [1.5, 0.3], atol=0.01)
    many = moments(law.sample(jax.random.key(1), 200_000))[1]
    np.testing.assert_allclose(covariance, many, atol=0.1)


def test_spread_is_closer_to_the_law_than_a_sample():
    law = gaussian_mixture_1d()
    cdf = lambda x: scipy.stats.norm.cdf(x, -3) / 3 + 2 * scipy.stats.norm.cdf(x, 3) / 3  # noqa: E731
    even, independent = (
        scipy.stats.kstest(draw(jax.random.key(0), 1000).position[:, 0], cdf).statistic
        for draw in (law.spread, law.sample)
    )
    assert 5 * even < independent


def test_spread_of_a_weighted_sample_is_the_sample_where_it_fits():
    measure = Particles(jnp.arange(5.0)[:, None], jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0, 0.0])))
    law = empirical(measure)
    whole = law.spread(jax.random.key(0), 5)
    np.testing.assert_allclose(whole.weight, measure.weight / 10)
    assert law.spread(jax.random.key(0), 3).log_weight.size == 3
