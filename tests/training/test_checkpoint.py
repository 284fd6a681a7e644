"""Checkpoints: exact, and refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, training

TREE = {"matrix": np.arange(6.0).reshape(2, 3), "count": np.int32(4)}


def test_what_is_restored_is_what_was_saved(tmp_path):
    tree = jax.tree.map(jnp.asarray, TREE)
    training.save(tmp_path, 3, tree)
    assert training.latest_step(tmp_path) == 3
    found = training.restore(tmp_path, tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [leaf.dtype for leaf in jax.tree.leaves(tree)]


def test_arrays_of_other_shapes_are_refused(tmp_path):
    training.save(tmp_path, 1, TREE)
    with pytest.raises(ValueError, match="damaged or of another model"):
        training.restore(tmp_path, {**TREE, "matrix": np.zeros((3, 2))})


@pytest.mark.parametrize("spherical", [True, False])
def test_geometries_and_keys_of_every_kind_come_back(tmp_path, spherical):
    keys = [jax.random.split(jax.random.key(3, impl=kind), 2) for kind in ("threefry2x32", "rbg")]
    tree = {"geometry": dynamics.Geometry(2.5, spherical), "keys": keys, "number": 0.5}
    training.save(tmp_path, 1, tree)
    # Shapes and dtypes are all that restoring has to be shown.
    for like in (tree, jax.eval_shape(lambda: tree)):
        found = training.restore(tmp_path, like)
        assert found["geometry"] == dynamics.Geometry(2.5, spherical)
        assert found["number"] == 0.5
        for key, expected in zip(found["keys"], keys, strict=True):
            assert key.dtype == expected.dtype
            np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


def test_functions_among_the_leaves_are_those_of_the_tree_shown(tmp_path):
    tree = {"weight": jnp.arange(3.0), "activation": jnp.tanh}
    training.save(tmp_path, 1, tree)
    found = training.restore(tmp_path, {"weight": jnp.zeros(3), "activation": jnp.tanh})
    np.testing.assert_array_equal(found["weight"], tree["weight"])
    assert found["activation"] is jnp.tanh
