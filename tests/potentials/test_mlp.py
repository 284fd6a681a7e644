"""The deep potential: its jet against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import potentials


@pytest.mark.parametrize("dim", [1, 3])
def test_jet_equals_automatic_differentiation(dim, key):
    potential = potentials.mlp(dim, width=5, depth=2)
    params = jax.tree.map(lambda leaf: leaf + 0.1, potential.init(key))
    t, x = jnp.array(0.7), jnp.linspace(-1.0, 1.0, dim)
    jet, expected = (p.jet(params, t, x) for p in (potential, potentials.from_function(potential.value)))
    for ours, theirs in zip(jet, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_it_begins_at_zero(key):
    potential = potentials.mlp(2)
    assert potential.value(potential.init(key), jnp.array(0.5), jnp.ones(2)) == 0


@pytest.mark.parametrize("size", [{"dim": 0}, {"dim": 2, "depth": 0}])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ValueError, match="at least 1"):
        potentials.mlp(**size)
