"""Optimality measures on paths whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import metrics, static


def test_straight_paths_score_one_and_returning_ones_zero():
    time = jnp.linspace(0, 1, 101)[:, None, None]
    straight = time * jnp.array([[1.0, 2.0], [0.0, -1.0]])
    loop = jnp.concatenate([jnp.cos(2 * jnp.pi * time), jnp.sin(2 * jnp.pi * time)], axis=-1)
    np.testing.assert_allclose(metrics.straightness(straight, jnp.ones(2)), 1, rtol=1e-12)
    np.testing.assert_allclose(metrics.straightness(loop, jnp.ones(1)), 0, atol=1e-12)
    assert metrics.straightness(jnp.zeros((5, 3, 2)), jnp.ones(3)) == 1


def test_momentum_is_constant_on_exact_geodesics_and_not_otherwise(key):
    alpha = 2.0
    diracs = static.Diracs(
        jax.random.normal(key, (6, 2)),
        jnp.zeros((6, 2)),
        jnp.linspace(0.5, 1.5, 6),
        jnp.linspace(1.0, 2.0, 6),
    )
    states = jax.vmap(lambda t: static.travel(diracs, t, alpha))(jnp.linspace(0.0, 1.0, 9))
    raw = jnp.log(states.mass)
    np.testing.assert_allclose(metrics.momentum_variation(states.velocity, raw), 0, atol=1e-6)
    assert metrics.momentum_variation(states.velocity, jnp.zeros_like(raw)) > 0.01


def test_slope_error_of_a_line_and_of_a_bend():
    time = jnp.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(metrics.slope_error(time, 3 - 2 * time, -2.0), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.slope_error(time, 3 - 2.2 * time, -2.0), 0.1, rtol=1e-9)
    # d/dt of t² is 2t, off its mean 1 by 2t - 1, whose rms is 1/√3.
    np.testing.assert_allclose(metrics.slope_error(time, time**2, 1.0), 1 / np.sqrt(3), rtol=1e-3)
