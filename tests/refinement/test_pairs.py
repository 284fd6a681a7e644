"""Matching on pairs: which flow it asks for, weights, masses, pairs out of reach."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, potentials, refinement
from wfr_flows.dynamics import Field, Geometry, Rates
from wfr_flows.measures import Particles, equally_weighted
from wfr_flows.static import Diracs

WASSERSTEIN = Geometry(jnp.inf, spherical=False)
SHIFT = jnp.array([1.0, -2.0])


def constant_field():
    return Field(lambda key: {}, lambda params, t, x: Rates(SHIFT, jnp.zeros(())))


def evaluated(field, geometry, pairs, **sizes):
    return jax.jit(refinement.flow_matching(field, geometry, pairs, **sizes))


def normal(key, n, dim=2):
    return equally_weighted(jax.random.normal(key, (n, dim)))


def test_independent_pairs_have_the_masses_of_both_ends(key):
    source = Particles(jnp.array([[0.0], [1.0]]), jnp.log(jnp.array([1.5, 0.5])))
    target = Particles(jnp.array([[5.0], [6.0]]), jnp.log(jnp.array([0.0, 3.0])))
    pairs = jax.jit(refinement.independent_pairs, static_argnums=3)(key, source, target, 400)
    np.testing.assert_allclose(pairs.source_mass.sum(), 2.0)
    np.testing.assert_allclose(pairs.target_mass.sum(), 3.0)
    np.testing.assert_allclose(jnp.mean(pairs.source), 0.25, atol=0.01)
    assert (pairs.target == 6.0).all()


def test_flow_pairs_have_one_exact_end_each(key):
    source, target = normal(key, 5), normal(jax.random.key(1), 3)
    join = partial(refinement.flow_pairs, constant_field(), WASSERSTEIN, num_steps=2)
    pairs = jax.jit(join)({}, source, target)
    np.testing.assert_allclose(pairs.source[:5], source.position)
    np.testing.assert_allclose(pairs.target[5:], target.position)
    np.testing.assert_allclose(pairs.target - pairs.source, jnp.tile(SHIFT, (8, 1)), atol=1e-12)
    np.testing.assert_allclose(pairs.source_mass.sum(), 1.0)


def test_the_right_field_has_no_loss(key):
    source = normal(key, 20)
    pairs = Diracs(source.position, source.position + SHIFT, source.weight, source.weight)
    assert evaluated(constant_field(), WASSERSTEIN, pairs)({}, key) < 1e-20


def test_a_potential_forgets_what_rotates(key):
    # Half a turn of a round Gaussian: its cost is all waste, and the best potential stands still.
    x = jax.random.normal(key, (4000, 2))
    weight = jnp.full(4000, 1 / 4000)
    pairs = Diracs(x, x @ jnp.array([[0.0, 1.0], [-1.0, 0.0]]), weight, weight)
    potential = potentials.moving_quadratic(2, degree=1)
    field = dynamics.potential_field(potential, WASSERSTEIN)
    loss = evaluated(field, WASSERSTEIN, pairs, num_times=64, num_pairs=512)
    params = potential.init(key)
    value, slope = jax.jit(jax.value_and_grad(loss))(params, key)
    # At rest, half the mean of |ẋ|².
    np.testing.assert_allclose(value, 0.5 * jnp.mean(jnp.sum((pairs.target - x) ** 2, axis=1)), rtol=0.05)
    skew = slope[0]["curvature"] - slope[0]["curvature"].T
    np.testing.assert_allclose(skew, 0.0, atol=1e-12)


def test_pairs_out_of_reach_die_and_are_born(key):
    pairs = Diracs(jnp.zeros((1, 1)), jnp.full((1, 1), 40.0), jnp.ones(1), jnp.full(1, 2.0))
    geometry = Geometry(1.0, spherical=False)
    rest = Field(lambda key: {}, lambda params, t, x: Rates(jnp.zeros(1), jnp.zeros(())))
    loss = evaluated(rest, geometry, pairs, num_times=64, num_pairs=64)
    # At rest the loss is the action by mass: that of dying and being born, over the mean mass.
    values = jax.jit(jax.vmap(loss, (None, 0)))({}, jax.random.split(key, 50))
    np.testing.assert_allclose(jnp.mean(values), 2 * 3.0 / 1.5, rtol=0.05)


@pytest.mark.parametrize("degree", [0, 1, 4])
def test_moving_quadratic_is_what_autodiff_says(degree, key):
    potential = potentials.moving_quadratic(3, degree=degree)
    structure = potential.init(key)
    leaves, shape = jax.tree.flatten(structure)
    keys = jax.random.split(key, len(leaves))
    params = jax.tree.unflatten(
        shape, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    t, x = jnp.array(0.3), jnp.array([0.4, -1.0, 2.0])
    both = potentials.total(potential, potentials.quadratic(3))
    sums = [params, jax.tree.map(lambda leaf: leaf + 0.1, potentials.quadratic(3).init(key))]
    for one, own in ((potential, params), (both, sums)):
        expected = jax.jit(potentials.from_function(one.value).jet)(own, t, x)
        for name, a, b in zip(expected._fields, jax.jit(one.jet)(own, t, x), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=name)


def test_what_is_no_potential_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        potentials.total()
    with pytest.raises(ValueError, match="at least 1 and 0"):
        potentials.moving_quadratic(0)
