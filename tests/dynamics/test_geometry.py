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
