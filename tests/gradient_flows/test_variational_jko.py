"""Variational JKO against steps in closed form, and what its parts promise."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import gradient_flows, measures, training

DIM = 2
CURVATURE = jnp.array([[1.5, 0.3], [0.3, 0.8]])
CENTRE = jnp.array([0.7, -0.4])
STEP_SIZES = (0.2, 0.1)


def quadratic(x):
    return 0.5 * (x - CENTRE) @ CURVATURE @ (x - CENTRE)


ENERGY = gradient_flows.FreeEnergy(gradient_flows.entropy(), quadratic)
MAP = gradient_flows.affine(DIM)
OPTIONS = {
    "num_iterations": 400,
    "batch": None,
    "start_steps": 1,
    "map_optimiser": partial(training.cosine_adam, learning_rate=2e-2),
    "ratio_optimiser": partial(training.cosine_adam, learning_rate=2e-2),
}


def gaussian_cloud(size):
    """Even particles of N(0, I) whose moments are those to rounding."""
    cloud = measures.standard_normal(DIM).spread(jax.random.key(0), size)
    mean, covariance = measures.moments(cloud)
    factor = jnp.linalg.cholesky(covariance)
    return cloud._replace(position=jnp.linalg.solve(factor, (cloud.position - mean).T).T)


def exact(order):
    """Mean and covariance after both steps: one affine equation for each eigenvector."""
    values, vectors = np.linalg.eigh(np.asarray(CURVATURE))
    centre = vectors.T @ np.asarray(CENTRE)
    mean, spread = [np.zeros(2)], [np.ones(2)]
    last = np.inf
    for step_size in STEP_SIZES:
        growth = step_size / last if order == 2 else 0.0
        implicit = step_size * (1 + growth) / (1 + 2 * growth)
        inertia = growth**2 / (1 + 2 * growth)
        before = [now[-1] + inertia * (now[-1] - now[max(len(now) - 2, 0)]) for now in (mean, spread)]
        mean.append((before[0] / implicit + values * centre) / (1 / implicit + values))
        both = 1 / implicit + values
        spread.append((before[1] / implicit + np.sqrt((before[1] / implicit) ** 2 + 4 * both)) / (2 * both))
        last = step_size
    return vectors @ mean[-1], vectors @ np.diag(spread[-1] ** 2) @ vectors.T


class Run(NamedTuple):
    method: object
    start: object
    state: object
    info: object


@pytest.fixture(scope="module", params=[1, 2])
def order(request):
    return request.param


@pytest.fixture(scope="module")
def run(order):
    with jax.enable_x64(True):
        ratio = gradient_flows.log_ratio(DIM, depth=0)
        method = gradient_flows.variational_jko(ENERGY, MAP, ratio, order=order, **OPTIONS)

        @jax.jit
        def flow(key):
            start = method.init((key, gaussian_cloud(400)))
            return start, *gradient_flows.evolve(method, key, start, jnp.array(STEP_SIZES))

        return Run(method, *flow(jax.random.key(1)))


def test_gaussian_steps_are_those_in_closed_form(run, order):
    mean, covariance = measures.moments(run.state.particles)
    exact_mean, exact_covariance = exact(order)
    np.testing.assert_allclose(mean, exact_mean, atol=3e-3)
    np.testing.assert_allclose(covariance, exact_covariance, atol=6e-3)


def test_energy_decreases_and_is_the_free_energy(run, order):
    energy = run.info.energy
    assert np.all(np.diff(energy) < 0)
    mean, covariance = exact(order)
    entropy = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    shift = mean - np.asarray(CENTRE)
    potential = 0.5 * (np.trace(np.asarray(CURVATURE) @ covariance) + shift @ np.asarray(CURVATURE) @ shift)
    np.testing.assert_allclose(energy[-1], entropy + potential, atol=0.02)
    np.testing.assert_allclose(run.info.covered, 1.0)
    assert np.all(np.asarray(run.info.transport) > 0)


def test_push_repeats_the_flow(run):
    end, path = gradient_flows.push(ENERGY, MAP, run.info.move, run.start.particles.position)
    np.testing.assert_allclose(end, run.state.particles.position, atol=1e-12)
    np.testing.assert_allclose(path[-1], end)
    np.testing.assert_allclose(path[0], run.state.previous, atol=1e-12)


def test_explicit_scheme_is_the_push_by_the_interaction(key):
    def kernel(z):
        return 0.5 * jnp.sum(z**2)

    energy = gradient_flows.FreeEnergy(interaction=kernel)
    method = gradient_flows.variational_jko(
        energy, MAP, num_iterations=50, batch=None, forward_backward=True, num_sources=6
    )
    cloud = measures.particles(np.random.default_rng(0).normal(size=(6, DIM)), np.arange(1.0, 7.0))
    state, info = jax.jit(method.step)(key, method.init((key, cloud)), 0.3)
    mean = cloud.normalise().weight @ cloud.position
    expected = cloud.position - 0.3 * (cloud.position - mean)
    np.testing.assert_allclose(state.particles.position, expected, atol=1e-12)
    moves = jax.tree.map(lambda leaf: leaf[None], info.move)
    end, _ = gradient_flows.push(energy, MAP, moves, cloud.position[:2])
    np.testing.assert_allclose(end, expected[:2], atol=1e-12)


@pytest.mark.parametrize("float64", [True, False])
def test_weights_mean_repetition_and_precision_is_kept(key, float64):
    with jax.enable_x64(float64):
        point = np.random.default_rng(1).normal(size=(5, DIM))
        weighted = measures.particles(point, [1, 2, 1, 3, 1])
        repeated = measures.particles(np.repeat(point, [1, 2, 1, 3, 1], axis=0))
        method = gradient_flows.variational_jko(
            gradient_flows.FreeEnergy(potential=quadratic), MAP, num_iterations=50, batch=None
        )
        step = jax.jit(method.step)
        ends = []
        for cloud in (weighted, repeated):
            state, _ = step(key, method.init((key, cloud)), 0.3)
            assert state.particles.position.dtype == (jnp.float64 if float64 else jnp.float32)
            ends.append(measures.moments(state.particles))
        np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-5)
        np.testing.assert_allclose(ends[0][1], ends[1][1], atol=1e-5)


def test_a_step_that_is_not_finite_stops_the_training_loop(key):
    method = gradient_flows.variational_jko(
        gradient_flows.FreeEnergy(potential=quadratic), MAP, num_iterations=2, batch=None
    )
    start = method.init((key, gaussian_cloud(5)))
    with pytest.raises(training.NonFiniteError) as caught:
        training.run(method, key, start._replace(previous_step_size=jnp.ones(())), lambda key: jnp.nan, 1)
    assert caught.value.step == 0
    np.testing.assert_array_equal(caught.value.state.particles.position, start.particles.position)


def test_impossible_options_are_refused():
    kernel = gradient_flows.FreeEnergy(interaction=lambda z: jnp.sum(z**2))
    for energy, options, word in [
        (gradient_flows.FreeEnergy(), {}, "terms"),
        (ENERGY, {}, "ratio"),
        (kernel, {"order": 3}, "order"),
        (kernel, {"order": 2, "forward_backward": True}, "forward_backward"),
        (kernel, {"num_iterations": 0}, "num_iterations"),
        (kernel, {"batch": 1}, "batch"),
        (kernel, {"inner_steps": 0}, "inner_steps"),
        (kernel, {"average_decay": 1.0}, "average_decay"),
    ]:
        with pytest.raises(ValueError, match=word):
            gradient_flows.variational_jko(energy, MAP, **options)
