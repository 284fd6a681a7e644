"""Internal energies by their duals: below the truth, tight at the density, tight after training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import gradient_flows, measures

MEAN, FACTOR = np.array([0.5, -1.0]), np.array([[1.2, 0.0], [0.5, 0.6]])


def values_of(internal, cloud, log_density, key):
    """The dual value at the true ratio, and at others."""
    dual = gradient_flows.dual_of(internal, gradient_flows.log_ratio(2, depth=0), cloud)
    seen = gradient_flows.look(dual, key, cloud, 50_000)

    def at(change):
        def log_value(params, x, key=None):
            position = dual.whitening.centre + x @ dual.whitening.factor.T
            log_p = jax.vmap(log_density)(position)
            log_gamma = dual.log_gamma(position, seen.reference_log_gamma)
            return jnp.maximum(log_p, -50.0) - log_gamma + change(position)

        return gradient_flows.value_of(
            dual._replace(ratio=dual.ratio._replace(log_value=log_value)), {}, seen
        )

    return at(lambda y: 0.0), at(lambda y: 0.2 * jnp.sin(3 * y[:, 0])), at(lambda y: 0.1 + 0.0 * y[:, 0])


CASES = {
    "entropy, gaussian": (1.0, gradient_flows.entropy(0.7, reference=gradient_flows.gaussian_reference(2.0))),
    "square, box": (2.0, gradient_flows.power_entropy(2.0, 0.7)),
    "square, gaussian": (
        2.0,
        gradient_flows.power_entropy(2.0, 0.7, reference=gradient_flows.gaussian_reference(2.0)),
    ),
    "cube, ball": (3.0, gradient_flows.power_entropy(3.0, 0.7, reference=gradient_flows.ball_reference(0.2))),
}


@pytest.mark.parametrize(("m", "internal"), CASES.values(), ids=CASES)
def test_dual_is_tight_at_the_density_and_below_elsewhere(m, internal, key):
    law = measures.barenblatt(2, 2.0, 0.5)

    @jax.jit
    def truth_and_values(key):
        cloud = law.spread(key, 20_000)
        density = jnp.exp(jax.vmap(law.log_density)(cloud.position))
        truth = 0.7 * jnp.mean(jnp.log(density) if m == 1 else density ** (m - 1) / (m - 1))
        return truth, *values_of(internal, cloud, law.log_density, key)

    truth, tight, *lower = truth_and_values(key)
    np.testing.assert_allclose(tight, truth, atol=0.02 * max(1.0, abs(float(truth))))
    assert all(value < tight for value in lower)


def test_a_base_is_where_ratios_begin(key):
    law = measures.mixture(np.ones(2), np.array([MEAN, -MEAN]), np.tile(FACTOR @ FACTOR.T, (2, 1, 1)))
    cloud = law.spread(key, 20_000)
    unnormalised = gradient_flows.entropy(base=lambda x: law.log_density(x) + 3.0)
    dual = gradient_flows.dual_of(unnormalised, gradient_flows.log_ratio(2, depth=0), cloud)
    params = dual.ratio.init(key)
    params["constant"] = jnp.asarray(-3.0)

    @jax.jit
    def both(key):
        value = gradient_flows.value_of(dual, params, gradient_flows.look(dual, key, cloud, 50_000))
        return value, jnp.mean(jax.vmap(law.log_density)(cloud.position))

    np.testing.assert_allclose(*both(key), atol=0.02)
    # With the potential of the same law nothing is left that depends on where the particles are.
    energy = gradient_flows.FreeEnergy(unnormalised, lambda x: -law.log_density(x))
    method = gradient_flows.variational_jko(
        energy,
        gradient_flows.affine(2),
        gradient_flows.log_ratio(2, depth=0),
        num_iterations=5,
        batch=200,
        start_steps=1,
        ratio_optimiser=lambda num: optax.sgd(0.0),
        map_optimiser=lambda num: optax.sgd(0.1),
    )
    some = measures.equally_weighted(cloud.position[:200])
    moved, _ = jax.jit(lambda s: method.step(key, method.init((key, s)), 1.0))(some)
    np.testing.assert_allclose(moved.particles.position, some.position, atol=1e-12)


def test_estimate_of_kl_is_a_lower_bound_tight_to_two_percent(key):
    # KL of N(MEAN, LLᵀ) to N(0, I), by the entropy and the potential of the latter.
    covariance = FACTOR @ FACTOR.T
    truth = 0.5 * (np.trace(covariance) + MEAN @ MEAN - 2 - np.linalg.slogdet(covariance)[1])
    keys = jax.random.split(key, 4)
    law = measures.gaussian(MEAN, covariance)
    cloud, fresh = law.spread(keys[0], 4000), law.spread(keys[1], 50_000)
    # A reference that is wrong on purpose: the ratio has everything to learn.
    wide = gradient_flows.entropy(reference=gradient_flows.gaussian_reference(1.8))
    dual = gradient_flows.dual_of(wide, gradient_flows.log_ratio(2, width=16, depth=1), cloud)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    params, _ = jax.jit(
        lambda key: gradient_flows.fit_ratio(key, dual, cloud, optimiser, num_steps=400, batch=1000)
    )(keys[2])
    potential = np.mean(0.5 * np.sum(np.asarray(fresh.position) ** 2, axis=1)) + np.log(2 * np.pi)

    @jax.jit
    def estimate(params, key):
        return potential + gradient_flows.value_of(dual, params, gradient_flows.look(dual, key, fresh))

    untrained = estimate(dual.ratio.init(key), keys[3])
    trained = estimate(params, keys[3])
    assert untrained < 0.99 * truth
    # 50,000 samples of either law leave a standard error of about 0.003.
    assert 0.98 * truth < trained < truth + 0.01


def test_links_are_positive_and_begin_at_one(key):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)))
    for link in (gradient_flows.exponential, gradient_flows.softplus, gradient_flows.squared):
        ratio = gradient_flows.log_ratio(2, width=4, depth=1, link=link)
        np.testing.assert_allclose(jax.jit(ratio.log_value)(ratio.init(key), x), 0.0, atol=1e-6)
        far = np.array([-300.0, -20.0, 0.0, 300.0], np.float32)
        assert np.isfinite(jax.jit(link.log_value)(far)).all()
        assert np.isfinite(jax.jit(jax.vmap(jax.grad(link.log_value)))(far)).all()


def test_dropout_is_on_with_a_key_and_off_without(key):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    transport = gradient_flows.residual(2, width=8, depth=2, dropout=0.5)
    ratio = gradient_flows.log_ratio(2, width=8, depth=2, dropout=0.5)
    for init, apply in ((transport.init, transport.apply), (ratio.init, ratio.log_value)):
        params, function = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3, init(key)), jax.jit(apply)
        steady = function(params, x)
        np.testing.assert_array_equal(steady, function(params, x))
        one, two = function(params, x, key), function(params, x, jax.random.key(5))
        assert not np.allclose(one, steady)
        assert not np.allclose(one, two)


def test_maps_begin_as_the_identity(key):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    for transport in (gradient_flows.affine(2), gradient_flows.residual(2, width=4, depth=1)):
        np.testing.assert_allclose(jax.jit(transport.apply)(transport.init(key), x), x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gradient_flows.entropy(0.0),
        lambda: gradient_flows.power_entropy(1.0),
        lambda: gradient_flows.power_entropy(2.0, -1.0),
        lambda: gradient_flows.log_ratio(0),
        lambda: gradient_flows.residual(2, dropout=1.0),
        lambda: gradient_flows.affine(0),
    ],
)
def test_impossible_parts_are_refused(make):
    with pytest.raises(ValueError, match="give"):
        make()
