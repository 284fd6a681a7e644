"""Telling values that are known now from those that a traced function stands for."""

import jax
from jax.core import Tracer

from wfr_flows.typing import PyTree


def concrete(*values: PyTree) -> bool:
    """Whether all values, arrays or trees of them, are known now, not only when a traced function runs.

    >>> concrete(1.0, None), bool(jax.jit(concrete)(1.0))
    (True, False)
    """
    return not any(isinstance(value, Tracer) for value in jax.tree.leaves(values))
