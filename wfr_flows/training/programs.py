"""The compiled chunk of a training: one program for a method, a sample function and shapes."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Literal

from wfr_flows.numerics import combine, is_floating, is_key, partition
from wfr_flows.training.method import Method, is_finite
from wfr_flows.typing import Key, PyTree

Sample = Callable[[Key], PyTree]
"""``key -> batch``."""


class Advanced(NamedTuple):
    """What a chunk returns.

    Attributes:
      state: after the last good step.
      alive: ``[chunk_size]``, whether all was finite up to and with a step.
      info: the infos of the steps, stacked.
    """

    state: PyTree
    alive: jax.Array
    info: Any


class _Static(NamedTuple):
    """Leaves of a state that are no arrays, such as functions, with their place in it."""

    structure: Any
    leaves: tuple[Any, ...]


class ChunkPrograms:
    """Chunks of one method and one sample function (None for batches from the host).

    Traced under `jax.jit`, so that a trace is kept by shapes, types and JAX's settings. The program of a
    trace takes the arrays that the functions close over as arguments: programs that differ in them alone are
    one in JAX's compilation cache on disk.
    """

    def __init__(self, step: Callable[[], Callable | None], sample: Callable[[], Sample | None]):
        self._traced = jax.jit(partial(_advance, step, sample), static_argnums=(0, 1))
        self._programs: dict[int, tuple[ClosedJaxpr, Callable]] = {}

    def program(self, chunk_size: int, key: Key, state: PyTree, batches: PyTree):
        """``(key, state, first, num_steps, batches) -> Advanced``, and the shapes and types of its result."""
        arrays, others = partition(state)
        static = _Static(jax.tree.structure(others), tuple(jax.tree.leaves(others)))
        number = np.int32(0)
        traced = self._traced.trace(chunk_size, static, key, arrays, number, number, batches)
        closed, structure = traced.jaxpr, jax.tree.structure(traced.out_info)
        if id(closed) not in self._programs:
            compiled = jax.jit(lambda data, leaves: eval_jaxpr(closed.jaxpr, data, *leaves))
            self._programs[id(closed)] = closed, partial(compiled, closed.consts)
        leaves_to_leaves = self._programs[id(closed)][1]

        def advance(key: Key, state: PyTree, first: int, num_steps: int, batches: PyTree) -> Advanced:
            numbers = jax.device_put((np.int32(first), np.int32(num_steps)))
            arguments = key, partition(state)[0], *numbers, batches
            done = structure.unflatten(leaves_to_leaves(jax.tree.leaves(arguments)))
            return done._replace(state=combine(done.state, others))

        return advance, traced.out_info


# Entries go with the functions: a trace holds neither the step nor the sample function.
_SCANS: weakref.WeakKeyDictionary[Callable, weakref.WeakKeyDictionary[Callable, ChunkPrograms]] = (
    weakref.WeakKeyDictionary()
)


def chunks_of(method: Method, sample: Sample | None) -> ChunkPrograms:
    """The chunks of a method and a sample function, the same ones for the same two functions."""
    step, draw = method.step, _from_host if sample is None else sample
    try:
        # A bound method is a new object wherever it is looked up, and not kept.
        kept = _SCANS.setdefault(step, weakref.WeakKeyDictionary())
        if draw not in kept:
            kept[draw] = ChunkPrograms(weakref.ref(step), weakref.ref(draw))
        return kept[draw]
    except TypeError:  # no weak references to it, or no hash
        return ChunkPrograms(lambda: step, lambda: draw)


def _from_host(key: Key) -> PyTree:
    """Stands for the sample function where batches come from the host."""
    raise AssertionError(key)


def _advance(
    step_of: Callable[[], Callable | None],
    sample_of: Callable[[], Sample | None],
    chunk_size: int,
    static: _Static,
    key: Key,
    arrays: PyTree,
    first: jax.Array,
    num_steps: jax.Array,
    batches: PyTree,
) -> Advanced:
    """Some steps as one scan, those beyond the last and all after a non-finite one changing nothing."""
    step, sample = step_of(), sample_of()
    assert step is not None
    assert sample is not None
    others = jax.tree.unflatten(static.structure, static.leaves)
    draw = None if sample is _from_host else traced_sample(sample, key)

    def body(carry: tuple[PyTree, jax.Array], now: tuple[jax.Array, PyTree]):
        (before, alive), (index, batch) = carry, now
        batch_key, step_key = jax.random.split(jax.random.fold_in(key, index))
        batch = batch if draw is None else draw(batch_key)
        after, info = step(step_key, combine(before, others), batch)
        after = partition(after)[0]
        alive = alive & is_finite((after, info))
        # The last chunk may be longer than what is left to do.
        keep = alive & (index < num_steps)
        kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), after, before)
        return (kept, alive), (alive, info)

    steps = first + jnp.arange(chunk_size, dtype=first.dtype)
    (after, _), (alive, info) = jax.lax.scan(body, (arrays, jnp.array(True)), (steps, batches))
    return Advanced(after, alive, info)


def traced_sample(sample: Sample, key: Key) -> Sample:
    """A sample function, traced once; refused where what it returns is not a function of its key.

    A function that reads from a loader, or draws with NumPy, is called while JAX traces it and never again:
    training would go on for ever with the batch it gave then. So where data come from outside, a second
    trace has to find the same; a batch that is always the same passes.

    Raises:
      ValueError: the second trace holds other data.
    """
    like = jax.ShapeDtypeStruct(key.shape, key.dtype)
    closed, shapes = _trace(sample, like)
    if (closed.consts or not _uses_key(closed)) and not _same_again(closed, sample, like):
        raise ValueError(
            "sample is not a function of its key: two calls gave different data, and training would see those"
            " of one call only. Give the iterator of batches itself as sample, or draw with the key."
        )
    structure = jax.tree.structure(shapes)
    return lambda key: structure.unflatten(eval_jaxpr(closed.jaxpr, closed.consts, key))


def _trace(sample: Sample, key: jax.ShapeDtypeStruct) -> tuple[ClosedJaxpr, PyTree]:
    # A function of its own for every trace, as JAX keeps those of a function that it knows.
    return jax.make_jaxpr(lambda key: sample(key), return_shape=True)(key)  # noqa: PLW0108


def _uses_key(closed: ClosedJaxpr) -> bool:
    (key,) = closed.jaxpr.invars
    return any(key in eqn.invars for eqn in closed.jaxpr.eqns) or key in closed.jaxpr.outvars


def _same_again(first: ClosedJaxpr, sample: Sample, key: jax.ShapeDtypeStruct) -> bool:
    """Whether another trace of a function closes over the same arrays and numbers."""
    try:
        second, _ = _trace(sample, key)
    except StopIteration:
        return False
    found, again = ([*each.consts, *_numbers(each)] for each in (first, second))
    return len(found) == len(again) and all(map(_equal, found, again))


def _numbers(closed: ClosedJaxpr) -> list[Any]:
    inputs = [*(variable for eqn in closed.jaxpr.eqns for variable in eqn.invars), *closed.jaxpr.outvars]
    return [variable.val for variable in inputs if isinstance(variable, Literal)]


def _equal(first: Any, second: Any) -> bool:
    if first is second:
        return True
    first, second = (
        np.asarray(jax.random.key_data(each) if is_key(each) else each) for each in (first, second)
    )
    return np.array_equal(first, second, equal_nan=is_floating(first))
