import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.numerics import inverse_distribution, lattice, running_total


def test_draws_follow_the_weights_and_skip_the_weightless():
    weight = np.array([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    point = (np.arange(10_000) + 1) / 10_000
    count = np.bincount(inverse_distribution(running_total(weight), point), minlength=6)
    np.testing.assert_allclose(count / 10_000, weight, atol=2e-4)


def test_float32_draws_from_many_tiny_weights_all_have_weight():
    # Two thirds of the entries have no weight; rounding of the running total must not select them.
    random = np.random.default_rng(0)
    weight = np.where(np.arange(300_000) % 3 == 0, random.uniform(size=300_000), 0.0) ** 8
    weight = weight.astype(np.float32)
    total = running_total(weight)
    assert (np.diff(total) >= 0).all()
    index = np.asarray(inverse_distribution(total, 1 - random.uniform(size=200_000).astype(np.float32)))
    assert (weight[index] > 0).all()


@pytest.mark.parametrize("dim", [1, 2, 5, 12])
def test_lattice_is_inside_the_cube_and_uniform(dim, key):
    points = np.asarray(jax.vmap(lambda k: lattice(k, 7, dim))(jax.random.split(key, 4000)))
    assert ((points > 0) & (points < 1)).all()
    # Any single point of it is uniform: mean 1/2, variance 1/12.
    error = np.sqrt(1 / 12 / 4000)
    np.testing.assert_allclose(points.mean(0), 0.5, atol=5 * error)
    np.testing.assert_allclose(points.var(0), 1 / 12, rtol=0.1)


@pytest.mark.parametrize(("dim", "gain"), [(1, 10), (2, 5), (5, 2)])
def test_lattice_means_have_less_noise_than_independent_ones(dim, gain, key):
    def mean(points):
        return jnp.mean(jnp.prod(1 + 0.5 * (points - 0.5), axis=1))

    keys = jax.random.split(key, 64)
    draws = jax.jit(
        jax.vmap(lambda k: (mean(lattice(k, 1000, dim)), mean(jax.random.uniform(k, (1000, dim)))))
    )
    even, independent = draws(keys)
    assert gain * np.std(even) < np.std(independent)


def test_lattice_does_not_lose_precision_far_along(key):
    # Neighbours differ by the same step, wherever in the sequence.
    points = np.asarray(lattice(key, 2_000_000, 1))[:, 0]
    step = np.diff(points) % 1
    np.testing.assert_allclose(step, step[0], atol=3e-7)
