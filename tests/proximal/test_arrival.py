"""The potential that heads for a place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import random_like
from wfr_flows import potentials


def test_jet_agrees_with_automatic_differentiation(key):
    potential = potentials.arrival(potentials.mlp(3, width=4, depth=2), 3, margin=0.05)
    params = random_like(key, potential.init(key))
    t, x = jnp.array(0.8), jnp.array([0.3, -1.0, 2.0])
    oracle = potentials.from_function(potential.value)
    jets = [jax.jit(p.jet)(params, t, x) for p in (potential, oracle)]
    for ours, theirs in zip(*jets, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_begins_at_rest(key):
    potential = potentials.arrival(potentials.mlp(2, width=4, depth=1), 2)
    jet = potential.jet(potential.init(key), jnp.array(0.5), jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(jet.gradient, 0)


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"dim": 0}])
def test_refusals(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        potentials.arrival(potentials.mlp(1), **{"dim": 1, **wrong})
