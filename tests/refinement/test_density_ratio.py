"""Density ratios: the loss, bridges, telescoping, energy models, against Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import measures, potentials, refinement
from wfr_flows.dynamics import Field, Geometry, Rates
from wfr_flows.measures import Particles, equally_weighted

WASSERSTEIN = Geometry(jnp.inf, spherical=False)
TIME = np.linspace(0.0, 1.0, 5)


def shift_field(shift):
    return Field(lambda key: {}, lambda params, t, x: Rates(shift, jnp.zeros(())))


def test_the_logistic_loss_is_least_at_the_log_ratio():
    # Three places with masses of both measures, which need not agree.
    first, last = np.array([1.0, 0.2, 0.5]), np.array([0.3, 0.4, 2.0])
    exact = np.log(last / first)
    loss = jax.jit(jax.value_and_grad(lambda r: refinement.logistic_loss(r, first, r, last)))
    least, slope = loss(exact)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    for direction in np.random.default_rng(0).normal(size=(5, 3)):
        assert loss(exact + 0.1 * direction)[0] > least


def test_telescoping_integrates_the_rate_exactly():
    # Two nodes integrate polynomials up to degree 3.
    rate = potentials.from_function(lambda params, t, x: (4 * t**3 + 1) * jnp.sum(x))
    x = jnp.array([0.5, 2.0])
    value = jax.jit(refinement.log_ratio(rate, TIME, num_nodes=2))({}, x)
    np.testing.assert_allclose(value, 5.0, rtol=1e-12)
    steps = refinement.stepwise(
        potentials.from_function(lambda params, t, x: params, lambda key: jnp.ones(())), TIME
    )
    np.testing.assert_allclose(
        jax.jit(refinement.log_ratio(steps, TIME, num_nodes=1))(jnp.arange(4.0), x), 1.5
    )


def test_a_flow_bridge_meets_the_path_and_keeps_masses(key):
    source = Particles(jax.random.normal(key, (50, 2)), jnp.full(50, jnp.log(2 / 50)))
    shift = jnp.array([4.0, 0.0])
    target = Particles(source.position + shift, source.log_weight)
    bridge = refinement.flow_bridge(shift_field(shift), WASSERSTEIN, {}, source, target, TIME, batch=400)
    batch = jax.jit(bridge)(key)
    np.testing.assert_allclose(np.sum(batch.weight, axis=1), 2.0, rtol=1e-6)
    expected = np.mean(source.position, axis=0) + TIME[:, None] * np.asarray(shift)
    np.testing.assert_allclose(np.mean(batch.position, axis=1), expected, atol=0.25)
    drawn = np.asarray(batch.position)
    assert np.isin(drawn[0, :, 0], np.asarray(source.position)[:, 0]).all()
    assert np.isin(drawn[-1, :, 0], np.asarray(target.position)[:, 0]).all()
    noisy = jax.jit(
        refinement.flow_bridge(
            shift_field(shift), WASSERSTEIN, {}, source, target, TIME, batch=4000, noise=2.0
        )
    )(key)
    spread = np.var(noisy.position, axis=1) - np.var(source.position, axis=0)
    np.testing.assert_allclose(spread, 4 * np.sin(np.pi * TIME)[:, None] ** 2 * np.ones(2), atol=0.5)


def test_a_linear_bridge_keeps_the_variance(key):
    normal = measures.standard_normal(2)
    source, target = normal.sample(key, 3000), normal.sample(jax.random.key(1), 3000)
    batch = jax.jit(refinement.linear_bridge(source, target, TIME, batch=3000))(key)
    np.testing.assert_allclose(np.var(batch.position, axis=1), 1.0, atol=0.1)
    assert batch.position.shape == (5, 3000, 2)


@pytest.fixture(scope="module")
def learned():
    """Between two Gaussians three standard deviations apart, along their optimal path."""
    with jax.enable_x64(True):
        shift = jnp.array([3.0, 0.0])
        keys = jax.random.split(jax.random.key(0), 4)
        source = measures.standard_normal(2).spread(keys[0], 20000)
        target = measures.gaussian(shift, jnp.eye(2)).spread(keys[1], 20000)
        bridge = refinement.flow_bridge(shift_field(shift), WASSERSTEIN, {}, source, target, TIME, batch=512)
        ratio = potentials.moving_quadratic(2, degree=1)
        log_ratio, params = refinement.fit_ratio(
            keys[2], ratio, TIME, bridge, num_steps=400, learning_rate=0.1
        )
        return shift, source, target, jax.jit(lambda x: log_ratio(params, x))


def test_the_ratio_of_two_gaussians(learned):
    shift, source, target, log_ratio = learned
    x = jnp.concatenate([source.position[:500], target.position[:500]])
    exact = x @ shift - 0.5 * shift @ shift
    found, slope = jax.jit(jax.vmap(jax.value_and_grad(log_ratio)))(x)
    assert np.mean(np.abs(found - exact)) < 0.25
    divergence = np.mean(jax.jit(jax.vmap(log_ratio))(target.position))
    np.testing.assert_allclose(divergence, 4.5, rtol=0.05)
    assert np.isfinite(slope).all()


def test_an_energy_model_is_the_other_density(learned):
    shift, _, target, log_ratio = learned
    base = measures.standard_normal(2)
    model = refinement.energy_model(base, log_ratio)
    law = measures.gaussian(shift, jnp.eye(2))
    both = jax.jit(jax.vmap(lambda x: (model(x), law.log_density(x))))
    found, exact = both(target.position[:500])
    np.testing.assert_allclose(np.mean(found), np.mean(exact), atol=0.25)
    bits = refinement.bits_per_dimension(exact, 2)
    np.testing.assert_allclose(bits, (1 + jnp.log(2 * jnp.pi)) / (2 * jnp.log(2.0)), rtol=0.05)


def test_weights_are_repetition(key):
    rate = potentials.moving_quadratic(1, degree=0)
    params = jax.tree.map(lambda leaf: leaf + 0.3, rate.init(key))
    x = jnp.array([[0.0], [0.0], [2.0]])
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), equally_weighted(x))
    once = Particles(jnp.stack([x[1:]] * 2), jnp.log(jnp.array([[2 / 3, 1 / 3]] * 2)))
    method = refinement.density_ratio(rate, jnp.array([0.0, 1.0]), optax.sgd(0.1))
    step = jax.jit(method.step)
    results = [step(key, method.init(params), batch) for batch in (twice, once)]
    for a, b in zip(*(jax.tree.leaves(r) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_is_no_bridge_is_refused(key):
    for time in (jnp.array([0.0]), jnp.array([0.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match="do not increase"):
            refinement.log_ratio(potentials.quadratic(2), time)
    with pytest.raises(ValueError, match="no log_density"):
        refinement.energy_model(measures.empirical(equally_weighted(jnp.eye(2))), lambda x: x)
