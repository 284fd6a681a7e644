"""Checkpoints: exact, and refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import training

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
