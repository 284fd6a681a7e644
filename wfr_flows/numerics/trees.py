"""Trees whose leaves are not all arrays known now: traced values, and functions among parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from wfr_flows.typing import ArrayLike, Key, PyTree


def concrete(*values: PyTree) -> bool:
    """Whether all values, arrays or trees of them, are known now, not only when a traced function runs.

    >>> concrete(1.0, None), bool(jax.jit(concrete)(1.0))
    (True, False)
    """
    return not any(isinstance(value, Tracer) for value in jax.tree.leaves(values))


def is_array(leaf: Any) -> bool:
    """Whether JAX can compute with a leaf: an array or a number, but not a function or a name."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed keys, as `jax.random.key` makes them, or stands for one."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array or a number that has derivatives."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def partition(tree: PyTree, chosen: Callable[[Any], bool] = is_array) -> tuple[PyTree, PyTree]:
    """A tree of the chosen leaves and one of the others, each with None where the other has a leaf."""
    leaves, structure = jax.tree.flatten(tree)
    inside = [chosen(leaf) for leaf in leaves]
    pairs = list(zip(leaves, inside, strict=True))
    first = structure.unflatten(leaf if ours else None for leaf, ours in pairs)
    return first, structure.unflatten(None if ours else leaf for leaf, ours in pairs)


def combine(first: PyTree, second: PyTree) -> PyTree:
    """The tree that `partition` took apart.

    >>> combine(*partition({"scale": 2.0, "activation": "relu"}))
    {'activation': 'relu', 'scale': 2.0}
    """
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def built_each(build: Callable[[Key], PyTree], keys: Key) -> PyTree:
    """What a function builds from each of ``[k]`` keys, its arrays stacked; other leaves stand once."""
    others = []

    def arrays(key: Key) -> PyTree:
        some, rest = partition(build(key))
        others.append(rest)
        return some

    return combine(jax.vmap(arrays)(keys), others[-1])


def entry(tree: PyTree, index: ArrayLike) -> PyTree:
    """One entry of stacked arrays, as `built_each` makes them."""
    return jax.tree.map(lambda leaf: leaf[index] if is_array(leaf) else leaf, tree)
