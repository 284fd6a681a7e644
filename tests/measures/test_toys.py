"""Toy sets: moments, supports and densities that NumPy computes another way."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wfr_flows.measures import (
    BUILTIN,
    checkerboard,
    circles,
    eight_gaussians,
    moons,
    pinwheel,
    swissroll,
    two_spirals,
)

TOYS = {
    "eight-gaussians": eight_gaussians,
    "moons": moons,
    "circles": circles,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
    "swissroll": swissroll,
    "two-spirals": two_spirals,
}
NUM = 20_000
_NODES = (np.arange(20_000) + 0.5) / 20_000


@cache
def _compiled(build):
    return jax.jit(build().sample, static_argnums=1)


@cache
def _draw(build):
    return np.asarray(_compiled(build)(jax.random.key(5), NUM).position)


def _assert_mean(values, expected):
    """Within four standard errors."""
    assert (abs(values.mean(axis=0) - expected) < 4 * values.std(axis=0) / np.sqrt(len(values))).all()


def _mean_over_nodes(x, y):
    return np.array([x.mean(), y.mean()])


def test_the_command_line_knows_every_toy():
    assert TOYS.items() <= BUILTIN.items()


@pytest.mark.parametrize("name", TOYS)
def test_samples_are_functions_of_the_key_of_any_size(name):
    law = TOYS[name]()
    sample = _compiled(TOYS[name])
    assert law.dim == 2
    for num in (1, NUM):
        drawn = sample(jax.random.key(0), num)
        assert drawn.position.shape == (num, 2)
        assert drawn.position.dtype == drawn.log_weight.dtype == jnp.float64
        np.testing.assert_allclose(drawn.mass, 1.0, rtol=1e-12)
        np.testing.assert_array_equal(drawn.position, sample(jax.random.key(0), num).position)
        assert (np.asarray(drawn.position) != sample(jax.random.key(1), num).position).any()
    plain = law.sample(jax.random.key(0), NUM)
    np.testing.assert_allclose(plain.position, drawn.position, rtol=1e-10)


@pytest.mark.parametrize("name", TOYS)
def test_samples_in_single_precision(name):
    with jax.enable_x64(False):
        drawn = jax.jit(TOYS[name]().sample, static_argnums=1)(jax.random.key(0), 100)
    assert drawn.position.dtype == drawn.log_weight.dtype == jnp.float32
    assert np.isfinite(drawn.position).all()


@pytest.mark.parametrize("build", [eight_gaussians, circles, checkerboard])
def test_densities_are_normalised_and_those_of_the_samples(build):
    log_density = jax.jit(jax.vmap(build().log_density))
    x = np.linspace(-6, 6, 480, endpoint=False) + 6 / 480
    log_p = np.asarray(log_density(np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)))
    p = np.exp(log_p) * (x[1] - x[0]) ** 2
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-9)
    # Mean and variance of the log-density: under the sample, and by quadrature.
    entropy = np.sum(p * np.where(p > 0, log_p, 0.0))
    at_samples = np.asarray(log_density(_draw(build)))
    error = at_samples.std() / np.sqrt(NUM)
    assert abs(at_samples.mean() - entropy) <= 4 * error + 1e-12


def test_circles_have_their_radii_and_noise():
    x = _draw(circles)
    _assert_mean(x, [0.0, 0.0])
    _assert_mean((x**2).sum(axis=1), (3.0**2 + 1.5**2) / 2 + 2 * 0.24**2)
    outer = np.linalg.norm(x, axis=1) > 2.25
    assert abs(outer.mean() - 0.5) < 4 * 0.5 / np.sqrt(NUM)
    np.testing.assert_allclose(np.linalg.norm(x[outer], axis=1).std(), 0.24, rtol=0.05)


def test_density_of_circles_is_smooth_at_the_centre_and_survives_far_out():
    log_density = jax.jit(circles().log_density)
    np.testing.assert_array_equal(jax.jit(jax.grad(log_density))(jnp.zeros(2)), 0)
    near = log_density(jnp.array([1e-3, 0.0]))
    np.testing.assert_allclose(log_density(jnp.zeros(2)), near, rtol=1e-4)
    assert np.isfinite(log_density(jnp.array([300.0, 0.0])))


def test_checkerboard_is_uniform_on_its_squares():
    x = _draw(checkerboard)
    np.testing.assert_allclose(jax.jit(jax.vmap(checkerboard().log_density))(x), -np.log(32))
    square = np.floor(x / 2).astype(int) + 2
    count = np.zeros((4, 4))
    np.add.at(count, tuple(square.T), 1)
    dark = np.add.outer(np.arange(4), np.arange(4)) % 2 == 0
    assert (count[~dark] == 0).all()
    assert scipy.stats.chisquare(count[dark]).pvalue > 1e-4
    assert scipy.stats.kstest((x / 2 % 1).ravel(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("point", [[1.0, -1.0], [4.0, 1.0], [5.0, 5.0], [-4.1, -4.1]])
def test_checkerboard_vanishes_off_its_squares(point):
    assert checkerboard().log_density(jnp.array(point)) == -jnp.inf


def test_checkerboard_in_single_precision_stays_on_its_squares():
    with jax.enable_x64(False):
        law = checkerboard()
        drawn = jax.jit(law.sample, static_argnums=1)(jax.random.key(0), 200_000).position
        assert (np.asarray(jax.jit(jax.vmap(law.log_density))(drawn)) > -10).all()


def test_pinwheel_unwinds_to_five_gaussian_arms():
    z = _draw(pinwheel) @ np.array([1, 1j]) / 2
    # Turned back by its radius, nearly its place along the arm, a point lies in one of five directions.
    fifth = (z / abs(z) * np.exp(0.25j * np.exp(abs(z)))) ** 5
    far = abs(z) > 0.8
    assert fifth[far].real.mean() > 0.7
    arm = np.round(-np.angle(z[far] * np.exp(0.25j * np.exp(abs(z[far])))) / (2 * np.pi / 5)) % 5
    assert scipy.stats.chisquare(np.unique(arm, return_counts=True)[1]).pvalue > 1e-4
    _assert_mean(abs(z) ** 2, 1 + 0.3**2 + 0.1**2)
    _assert_mean(abs(z) ** 4, 1 + 6 * 0.3**2 + 3 * 0.3**4 + 3 * 0.1**4 + 2 * (1 + 0.3**2) * 0.1**2)


def test_spread_sets_have_equal_parts():
    z = (
        np.asarray(jax.jit(pinwheel().spread, static_argnums=1)(jax.random.key(0), 1003).position)
        @ np.array([1, 1j])
        / 2
    )
    place = (z / abs(z) * np.exp(0.25j * np.exp(abs(z)))).reshape(-1)
    counts = np.bincount(np.round(-np.angle(place[abs(z) > 0.8]) / (2 * np.pi / 5)).astype(int) % 5)
    assert counts.min() > 0.2 * 0.6 * 1003
    # Without noise the half circles are at distance 2 of their centres.
    x = np.asarray(
        jax.jit(moons(noise=0.0).spread, static_argnums=1)(jax.random.key(0), 1001).position
    ) + np.array([1.0, 0.2])
    upper = np.isclose(np.linalg.norm(x, axis=1), 2)
    lower = np.isclose(np.linalg.norm(x - np.array([2.0, 1.0]), axis=1), 2)
    assert (upper | lower).all()
    assert upper.sum() == 501


def test_swissroll_follows_its_spiral():
    x = _draw(swissroll)
    t = np.pi * (1.5 + 3 * _NODES)
    spiral = t * np.stack([np.cos(t), np.sin(t)]) / 5
    _assert_mean(x, _mean_over_nodes(*spiral))
    _assert_mean(x**2, _mean_over_nodes(*spiral**2) + 0.2**2)
    nearest = np.linalg.norm(x[:500, :, None] - spiral[:, ::20], axis=1).min(axis=1)
    # Across the spiral the noise is normal with standard deviation 0.2.
    np.testing.assert_allclose(np.sqrt((nearest**2).mean()), 0.2, rtol=0.1)


def test_two_spirals_are_mirror_images():
    x = _draw(two_spirals)
    t = 3 * np.pi * np.sqrt(_NODES)
    spiral = t * np.stack([-np.cos(t), np.sin(t)]) / 3
    _assert_mean(x, [0.0, 0.0])
    # The uniform noise on [0, 1/6] has mean 1/12 and second moment 1/108.
    _assert_mean(x**2, _mean_over_nodes(*(spiral**2 + spiral / 6)) + 1 / 108 + 0.1**2)
    both = np.concatenate([spiral[:, ::20] + 1 / 12, -spiral[:, ::20] - 1 / 12], axis=1)
    assert np.linalg.norm(x[:500, :, None] - both, axis=1).min(axis=1).max() < 0.6
