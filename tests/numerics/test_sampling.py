import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.numerics import inverse_distribution, running_total


def test_draws_follow_the_weights_and_skip_the_weightless(key):
    weight = jnp.array([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    point = (jnp.arange(10_000) + 1) / 10_000
    count = np.bincount(inverse_distribution(running_total(weight), point), minlength=6)
    np.testing.assert_allclose(count / 10_000, weight, atol=2e-4)


def test_float32_draws_from_many_tiny_weights_all_have_weight(key):
    # Two thirds of the entries have no weight; rounding of the running total must not select them.
    weight = jnp.where(jnp.arange(300_000) % 3 == 0, jax.random.uniform(key, (300_000,)), 0.0) ** 8
    weight = weight.astype(jnp.float32)
    total = running_total(weight)
    assert (jnp.diff(total) >= 0).all()
    index = inverse_distribution(total, 1 - jax.random.uniform(key, (200_000,), jnp.float32))
    assert (weight[index] > 0).all()
