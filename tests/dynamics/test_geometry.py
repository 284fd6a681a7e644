import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.dynamics import Geometry


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_a_length_scale_that_is_not_positive_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        _ = Geometry(alpha).inverse_alpha


def test_inverse_alpha_and_default():
    assert Geometry(2.0).spherical
    assert Geometry(4.0).inverse_alpha == 0.25
    assert Geometry(math.inf).inverse_alpha == 0.0


def test_energy_is_that_of_motion_and_of_growth():
    velocity, growth = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([0.0, 2.0])
    np.testing.assert_array_equal(Geometry(0.5).energy(velocity, growth), [12.5, 1.0])
    # Where nothing grows, what a field says about it does not count.
    np.testing.assert_array_equal(Geometry(math.inf).energy(velocity, jnp.array([1.0, 2.0])), [12.5, 0.0])
    energy = jax.jit(jax.vmap(lambda a: Geometry(a).energy(velocity[1], growth[1])))
    np.testing.assert_array_equal(energy(jnp.array([0.5, jnp.inf])), [1.0, 0.0])


def test_inverse_alpha_of_a_traced_length_scale():
    inverse = jax.jit(jax.vmap(lambda a: Geometry(a).inverse_alpha))(jnp.array([0.5, 2.0, jnp.inf]))
    np.testing.assert_array_equal(inverse, [2.0, 0.5, 0.0])


def energy(geometry):
    return geometry.energy(jnp.array([3.0, 4.0]), jnp.array(2.0))


def test_a_geometry_is_an_argument_of_transformed_functions():
    # ½·25 + ½alpha·4
    np.testing.assert_array_equal(jax.jit(energy)(Geometry(0.5)), 13.5)
    alphas = Geometry(jnp.array([0.5, 2.0, jnp.inf]), spherical=False)
    np.testing.assert_array_equal(jax.vmap(energy)(alphas), [13.5, 16.5, 12.5])
    np.testing.assert_array_equal(
        jax.vmap(energy, (Geometry(0),))(Geometry(alphas.alpha)), [13.5, 16.5, 12.5]
    )
    slope = jax.grad(energy)(Geometry(0.5))
    assert (slope.alpha, slope.spherical) == (2.0, True)
    np.testing.assert_array_equal(jax.vmap(jax.grad(energy))(alphas).alpha, [2.0, 2.0, 0.0])


def test_a_geometry_keeps_what_it_is_on_the_way_through_a_tree():
    for spherical in (True, False):
        through = jax.jit(lambda geometry: geometry)(Geometry(3.0, spherical))
        assert through.spherical is spherical
        alpha, kept = through._replace(alpha=4.0)
        assert (alpha, kept) == (4.0, spherical)
    assert jax.tree.structure(Geometry(1.0)) != jax.tree.structure(Geometry(1.0, spherical=False))
    assert jax.tree.leaves(Geometry(1.0)) == [1.0]
    assert hash(Geometry(1.0)) == hash(Geometry(1.0))


def test_numbers_of_any_library_share_a_program():
    traces = []

    @jax.jit
    def traced(geometry):
        traces.append(1)
        return energy(geometry)

    numbers = 1.0, np.float64(1.0), np.array(1.0), jnp.float64(1.0), jnp.asarray(1.0), jnp.ones(()) * 1.0
    found = [traced(Geometry(alpha)) for alpha in numbers]
    assert len(traces) == 1
    np.testing.assert_array_equal(found, np.full(len(numbers), 14.5))
