"""Pareto smoothing against laws whose tails are known, and what it does to averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfr_flows import inference, measures
from wfr_flows.measures import Particles

SIZE = 4000


def weighted(log_weight):
    log_weight = jnp.asarray(log_weight)
    return Particles(jnp.zeros((log_weight.size, 1)), log_weight)


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_fit_recovers_the_law(key, shape, scale):
    uniform = jax.random.uniform(key, (SIZE,))
    excess = jnp.sort(scale * jnp.expm1(-shape * jnp.log1p(-uniform)) / shape)
    found_shape, found_scale = jax.jit(inference.fit_generalised_pareto)(excess)
    # Four standard errors of the maximum of the likelihood, of which the shape's is (1 + k)/√n.
    np.testing.assert_allclose(found_shape, shape, atol=4 * (1 + shape) / SIZE**0.5)
    np.testing.assert_allclose(found_scale, scale, rtol=4 * (2 * (1 + shape) / SIZE) ** 0.5)


@pytest.mark.parametrize("variance", [0.5, 0.75, 0.9])
def test_the_shape_is_that_of_gaussian_ratios(key, variance):
    # N(0, 1)/N(0, v): the ratio has a tail of index k = 1 - v, but for a logarithm.
    x = variance**0.5 * jax.random.normal(key, (200_000,))
    ratio = -0.5 * x**2 * (1 - 1 / variance)
    _, shape = jax.jit(inference.pareto_smoothed)(weighted(ratio))
    np.testing.assert_allclose(shape, 1 - variance, atol=0.12)


def test_one_stray_no_longer_carries_everything(key):
    ratio = 0.3 * jax.random.normal(key, (2000,))
    before = weighted(ratio.at[0].set(6.0))
    after, _ = inference.pareto_smoothed(before)
    assert before.effective_sample_size < 40
    assert after.effective_sample_size > 1000


@settings(deadline=None, max_examples=20)
@given(
    # A program each: a particle alone, the most without a tail, the fewest with one, many.
    st.sampled_from([1, 24, 25, 60]).flatmap(lambda n: st.lists(st.floats(-30, 30), min_size=n, max_size=n)),
    st.floats(-50, 50),
)
def test_mass_order_and_greatest_weight_are_kept(logs, level):
    before = weighted(np.array(logs) + level)
    after, shape = inference.pareto_smoothed(before)
    np.testing.assert_allclose(after.mass, before.mass, rtol=1e-9)
    order = np.argsort(before.log_weight, kind="stable")
    assert np.all(np.diff(np.asarray(after.log_weight)[order]) >= -1e-9)
    assert not np.isinf(shape)
    # But for the factor that restores the mass, which all share, none exceeds the greatest there was.
    restored = after.log_weight[order[0]] - before.log_weight[order[0]]
    assert np.max(after.log_weight) - restored <= np.max(before.log_weight) + 1e-9


@pytest.mark.parametrize("present", [400, 30])
def test_derivatives_hold_whether_or_not_there_is_a_tail(key, present):
    logs = jnp.full(400, -jnp.inf).at[:present].set(jax.random.normal(key, (present,)))

    def average(logs):
        smooth, _ = inference.pareto_smoothed(weighted(logs))
        return jnp.sum(smooth.weight * jnp.arange(400.0))

    slope = jax.jit(jax.vmap(jax.grad(average)))(logs[None])[0]
    step = 1e-6
    for index in (0, 7, 29):
        above, below = (average(logs.at[index].add(sign * step)) for sign in (1, -1))
        np.testing.assert_allclose(slope[index], (above - below) / (2 * step), rtol=1e-4, atol=1e-4)


def test_equal_weights_few_particles_and_none_are_left_alone():
    for logs in (np.zeros(100), np.linspace(0, 5, 24), np.full(50, -np.inf)):
        before = weighted(logs)
        after, shape = inference.pareto_smoothed(before)
        np.testing.assert_array_equal(after.log_weight, before.log_weight)
        assert np.isnan(shape)


def test_weights_of_zero_stay_zero(key):
    logs = jnp.full(4096, -jnp.inf).at[:150].set(jax.random.normal(key, (150,)))
    before = weighted(logs)
    after, shape = inference.pareto_smoothed(before)
    np.testing.assert_array_equal(after.log_weight, before.log_weight)
    assert np.isnan(shape)
    logs = logs.at[:400].set(jax.random.normal(key, (400,)))
    after, shape = inference.pareto_smoothed(weighted(logs))
    assert np.isfinite(shape)
    assert np.all(np.isneginf(after.log_weight) == np.isneginf(logs))


def test_a_stray_out_of_range_is_said_to_be_one(key):
    logs = jax.random.normal(key, (1000,)).at[0].set(2000.0)
    _, shape = inference.pareto_smoothed(weighted(logs))
    assert shape == np.inf


def test_samplers_say_how_heavy_their_tails_are(key):
    # A start with lighter tails than the target: shape 1 - 1/4.
    start = measures.gaussian(np.zeros(1), np.eye(1) / 4)
    target = measures.standard_normal(1).log_density
    found = inference.sample_by_importance(key, target, start, 20_000)
    assert 0.5 < found.tail_shape < 1
    same = inference.sample_by_importance(key, start.log_density, start, 2000)
    assert np.isnan(same.tail_shape) or same.tail_shape < 0.5
