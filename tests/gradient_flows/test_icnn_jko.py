"""JKO steps by convex networks against the closed form, and the contract of the scheme."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import single_precision

from wfr_flows import measures, potentials
from wfr_flows.gradient_flows import (
    Sample,
    carry,
    evolve,
    flow_log_density,
    free_energy,
    gaussian_jko_step,
    icnn_jko,
    negative_entropy,
    porous_energy,
    potential_energy,
    total,
    trajectory,
)
from wfr_flows.training import is_finite

DIM, STEP_SIZE, ITERATIONS = 2, 0.1, 400
TARGET_MEAN, TARGET_VARIANCE = np.array([1.0, -0.5]), np.array([0.5, 2.0])
POTENTIAL = potentials.icnn(DIM, width=3)


def _optimiser():
    return optax.adam(optax.cosine_decay_schedule(1e-2, ITERATIONS))


def _energy():
    return free_energy(measures.gaussian(TARGET_MEAN, np.diag(TARGET_VARIANCE)).log_density)


@partial(jax.jit, static_argnums=1)
def _standard_sample(key, num):
    source = measures.standard_normal(DIM)
    particles = measures.with_moments(source.spread(key, num), jnp.zeros(DIM), jnp.eye(DIM))
    return Sample(particles, jax.vmap(source.log_density)(particles.position))


_carry = jax.jit(partial(carry, POTENTIAL))


@pytest.fixture(scope="module")
def flow():
    """Three steps, as one scan: the function that runs them, start, end, infos."""
    with jax.enable_x64(True):
        method = icnn_jko(POTENTIAL, _energy(), _optimiser(), num_iterations=ITERATIONS, batch=512)
        start = method.init((jax.random.key(1), _standard_sample(jax.random.key(0), 8192)))
        run = jax.jit(lambda key, state: evolve(method, key, state, jnp.full(3, STEP_SIZE)))
        return run, start, *run(jax.random.key(2), start)


def test_steps_agree_with_the_closed_form(flow):
    _, start, _, infos = flow
    times = STEP_SIZE * np.arange(4.0)
    path = jax.jit(lambda maps, start: trajectory(POTENTIAL, maps, start, times))(
        infos.map, start.sample.particles
    )
    mean, variance = np.zeros(DIM), np.ones(DIM)
    step = jax.jit(gaussian_jko_step)
    density = jax.jit(
        lambda mean, covariance, x: jax.vmap(measures.gaussian(mean, covariance).log_density)(x)
    )
    for k in range(1, 4):
        mean, variance = step(mean, variance, TARGET_MEAN, TARGET_VARIANCE, STEP_SIZE)
        found_mean, found_covariance = measures.moments(path.at(k))
        np.testing.assert_allclose(found_mean, mean, atol=1e-3)
        np.testing.assert_allclose(found_covariance, np.diag(variance), atol=1e-3)
        expected = np.asarray(density(mean, np.diag(variance), np.asarray(path.position)[k]))
        carried = np.asarray(start.sample.log_density) - np.asarray(path.log_det)[k]
        assert np.mean((carried - expected) ** 2) < 1e-4


def test_the_midpoint_rule_follows_the_diffusion_at_order_two(flow):
    """As many steps as JKO does, and much nearer to the law of the process."""
    _, _, jko, _ = flow
    options = {"num_iterations": ITERATIONS, "batch": 512, "order": 2}
    method = icnn_jko(POTENTIAL, _energy(), _optimiser(), **options)
    start = method.init((jax.random.key(1), _standard_sample(jax.random.key(0), 8192)))
    after, _ = jax.jit(lambda state: evolve(method, jax.random.key(2), state, jnp.full(3, STEP_SIZE)))(start)
    decay = np.exp(-3 * STEP_SIZE / TARGET_VARIANCE)
    mean, variance = (1 - decay) * TARGET_MEAN, TARGET_VARIANCE * (1 - decay**2) + decay**2

    def error(sample):
        found_mean, covariance = measures.moments(sample.particles)
        return max(np.abs(found_mean - mean).max(), np.abs(np.diag(covariance) - variance).max())

    assert error(after.sample) < 0.2 * error(jko.sample)


def test_the_closed_form_is_the_minimum():
    mean, variance = jnp.array([0.3]), jnp.array([1.5])
    target = jnp.array([1.0]), jnp.array([0.4])

    def objective(new):
        shift = (new[0] - mean) ** 2 + (new[1] - jnp.sqrt(variance)) ** 2
        divergence = (new[1] ** 2 + (new[0] - target[0]) ** 2) / (2 * target[1]) - jnp.log(new[1])
        return jnp.sum(shift / (2 * 0.3) + divergence)

    found, spread = jax.jit(gaussian_jko_step)(mean, variance, *target, 0.3)
    slope = jax.jit(jax.grad(objective))((found, np.sqrt(spread)))
    np.testing.assert_allclose(np.concatenate(slope), 0.0, atol=1e-12)


def test_free_energy_falls_by_at_least_what_transport_costs(flow):
    _, start, _, infos = flow
    energy = jnp.append(_energy()(*start.sample), infos.energy)
    assert jnp.all(jnp.diff(energy) < -infos.transport + 1e-6)
    assert jnp.all(infos.transport > 0)


def test_density_at_points_is_that_of_the_samples(flow):
    _, start, end, infos = flow
    some = jax.tree.map(lambda leaf: leaf[:64], end.sample)
    source = measures.standard_normal(DIM).log_density
    evaluate = jax.jit(lambda maps, x: flow_log_density(POTENTIAL, maps, source, x))
    np.testing.assert_allclose(evaluate(infos.map, some.particles.position), some.log_density, atol=1e-8)
    carried = _carry(infos.map, start.sample)
    np.testing.assert_allclose(carried.particles.position, end.sample.particles.position, atol=1e-12)
    np.testing.assert_allclose(carried.log_density, end.sample.log_density, atol=1e-12)


def test_single_precision(flow):
    run, start, _, infos = flow
    end, single = run(jax.random.key(2), single_precision(start))
    assert end.sample.log_density.dtype == jnp.float32
    np.testing.assert_allclose(single.energy, infos.energy, atol=5e-3)


def test_first_loss_of_a_batch_is_that_of_the_sample(key):
    # At the identity and for a quadratic energy, because a batch has the moments of all of it.
    sample = _standard_sample(key, 512)
    energy = potential_energy(lambda x: x @ jnp.array([[2.0, 0.5], [0.5, 1.0]]) @ x + x[0])
    method = icnn_jko(POTENTIAL, energy, optax.sgd(0.1), num_iterations=1, batch=8)
    state = method.init((key, sample))
    loss = jax.jit(lambda key: method.step(key, state, 0.1)[1].loss[0])
    expected = jax.jit(energy)(*sample)
    for seed in range(3):
        np.testing.assert_allclose(loss(jax.random.key(seed)), expected, rtol=1e-8)


def test_fresh_samples_and_restart(key):
    options = {"num_iterations": 20, "batch": 64, "restart": True, "num_steps": 2}
    method = icnn_jko(
        POTENTIAL, _energy(), _optimiser(), fresh=lambda key: _standard_sample(key, 128), **options
    )
    state = method.init((key, _standard_sample(key, 128)))
    end, infos = jax.jit(lambda key: evolve(method, key, state, jnp.full(2, STEP_SIZE)))(key)
    assert jax.jit(is_finite)((end, infos))
    assert int(end.step) == 2
    np.testing.assert_array_equal(end.maps.params["root"], infos.map.params["root"])
    old = _carry(infos.map, state.sample)
    assert not np.allclose(end.sample.particles.position, old.particles.position, atol=0.1)


def test_functionals_of_a_gaussian(key):
    particles = measures.standard_normal(1).spread(key, 4096)
    second_moment = potential_energy(lambda x: x[0] ** 2)

    @jax.jit
    def values(particles):
        log_density = jax.vmap(measures.standard_normal(1).log_density)(particles.position)
        functionals = (
            negative_entropy(2.0),
            second_moment,
            porous_energy(2.0),
            total(negative_entropy(), second_moment),
            free_energy(measures.gaussian(jnp.ones(1), jnp.eye(1)).log_density, 3.0),
        )
        return [functional(particles, log_density) for functional in functionals]

    doubled, moment, porous, summed, divergence = values(particles)
    entropy = -0.5 * (1 + np.log(2 * np.pi))
    np.testing.assert_allclose(doubled, 2 * entropy, atol=2e-3)
    np.testing.assert_allclose(moment, 1.0, atol=2e-3)
    np.testing.assert_allclose(porous, 0.5 / np.pi**0.5, atol=1e-3)
    np.testing.assert_allclose(summed, entropy + 1, atol=4e-3)
    np.testing.assert_allclose(divergence, 1.5, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"order": 3}, "order is 3"),
        ({"num_steps": 3}, "0 without"),
        ({"fresh": lambda key: None}, "how many there may be"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        icnn_jko(POTENTIAL, _energy(), _optimiser(), **options)


def test_a_porous_power_of_one_is_refused():
    with pytest.raises(ValueError, match="power is 1"):
        porous_energy(1)
