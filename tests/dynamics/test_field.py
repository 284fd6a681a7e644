"""Fields: a potential's motion and growth, free networks, windows in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, potentials
from wfr_flows.dynamics import Geometry

T, X = jnp.array(0.3), jnp.array([0.4, -1.1])


def test_a_potential_moves_down_and_grows_where_it_is_negative():
    potential = potentials.from_function(lambda params, t, x: t * jnp.sum(x**2) - 1)
    rates = dynamics.potential_field(potential, Geometry(2.0, spherical=False)).rates({}, T, X)
    squared = jnp.sum(X**2)
    np.testing.assert_allclose(rates.velocity, -0.6 * X)
    np.testing.assert_allclose(rates.growth, -(0.3 * squared - 1) / 2)
    np.testing.assert_allclose(rates.energy, squared)


def test_at_infinite_alpha_nothing_grows():
    field = dynamics.potential_field(potentials.mlp(2, width=4), Geometry(jnp.inf, spherical=False))
    assert field.rates(field.init(jax.random.key(0)), T, X).growth == 0


def test_free_networks_begin_at_rest():
    field = dynamics.free_field(2, width=4)
    rates = field.rates(field.init(jax.random.key(0)), T, X)
    assert rates.velocity.shape == (2,)
    assert rates.growth.shape == ()
    assert rates.energy is None
    assert not jnp.any(rates.velocity)
    assert rates.growth == 0


def test_windows_are_fields_of_their_own_in_their_own_time():
    inner = dynamics.potential_field(potentials.quadratic(2), Geometry(2.0, spherical=False))
    time = jnp.array([0.0, 1.0, 3.0])
    field = dynamics.windowed(inner, time)
    params = jax.tree.map(lambda leaf: leaf + 0.3, field.init(jax.random.key(0)))
    for t, index, length in ((0.25, 0, 1.0), (1.0, 1, 2.0), (2.0, 1, 2.0), (3.0, 1, 2.0)):
        outer = field.rates(params, jnp.array(t), X)
        own = jax.tree.map(lambda leaf, i=index: leaf[i], params)
        inside = inner.rates(own, jnp.array((t - time[index]) / length), X)
        np.testing.assert_allclose(outer.velocity, inside.velocity / length, rtol=1e-12)
        np.testing.assert_allclose(outer.growth, inside.growth / length, rtol=1e-12)
        np.testing.assert_allclose(outer.energy, inside.energy / length**2, rtol=1e-12)


@pytest.mark.parametrize("size", [{"dim": 0}, {"dim": 2, "width": 0}])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ValueError, match="at least 1"):
        dynamics.free_field(**size)
