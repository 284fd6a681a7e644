"""One training loop: scanned chunks, and between them progress, checkpoints and the non-finite guard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr

from wfr_flows.training.checkpoint import CheckpointError
from wfr_flows.training.method import Method, is_finite
from wfr_flows.training.resume import next_record
from wfr_flows.typing import Key, PyTree


class NonFiniteError(FloatingPointError):
    """Training met NaN or infinity.

    Attributes:
      step: the step that did, counted from 0.
      state: the state before it, still good; from a function that returns something else, what it would have
        returned after that state.
      phase: name of the part of a training that the step is counted in, or nothing.
    """

    def __init__(self, step: int, state: PyTree, phase: str = ""):
        where = f" of {phase}" if phase else ""
        super().__init__(
            f"training turned non-finite at step {step}{where}; the state before it is kept."
            " Lower the learning rate, or look for extreme values in the data."
        )
        self.step = step
        self.state = state
        self.phase = phase


@contextmanager
def last_good(result: Callable[[PyTree], Any], phase: str = "") -> Iterator[None]:
    """Within the body, `NonFiniteError` carries ``result(state)`` in place of the last good state.

    Args:
      result: of the state that the error carries otherwise; what the body would have led to from there.
      phase: name of the body, for the message, unless the error has one.
    """
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(error.step, result(error.state), error.phase or phase) from error


class Chunk(NamedTuple):
    """What the loop reports between chunks.

    Attributes:
      step: steps done so far, including earlier runs.
      state: the state after them.
      info: the infos of this chunk's steps, stacked.
    """

    step: int
    state: PyTree
    info: Any


def run(
    method: Method,
    key: Key,
    state: PyTree,
    sample: Callable[[Key], PyTree],
    num_steps: int,
    *,
    start: int = 0,
    chunk_size: int = 50,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
) -> PyTree:
    """Run ``method.step`` from step ``start`` to ``num_steps``, ``chunk_size`` steps per compiled scan.

    Step ``k`` uses keys folded from ``key`` and ``k`` alone, so a run resumed from a saved ``(step, state)``
    does exactly what the uninterrupted one does, whatever the chunks. Within `resumable` it saves and resumes
    by itself, and the first chunk reported holds all that was done before.

    Args:
      method: ``init`` and ``step``.
      key: seeds batches and steps.
      state: the state at step ``start``.
      sample: ``key -> batch``, traced inside the scan.
      num_steps: total number of steps.
      start: first step to do.
      chunk_size: steps between two calls of ``on_chunk``.
      on_chunk: called on the host after every chunk.

    Returns:
      The state after ``num_steps`` steps.

    Raises:
      NonFiniteError: a step's state or info is not finite; carries the last good state.
    """

    advance = _scan(method, sample, chunk_size)
    record = next_record()
    if start == 0 and record.begun:
        _, info = jax.eval_shape(lambda: method.step(key, state, sample(key)))
        start, state, info = record.restored(state, info)
        if start > num_steps:
            raise CheckpointError(f"{start} steps are kept, more than num_steps {num_steps}; begin anew.")
        on_chunk(Chunk(start, state, info))
    for first in range(start, num_steps, chunk_size):
        state, alive, info = advance(key, state, jnp.asarray(first), jnp.asarray(num_steps))
        done = min(chunk_size, num_steps - first)
        good = done if np.all(alive[:done]) else int(np.argmin(np.asarray(alive)))
        chunk = Chunk(first + good, state, jax.tree.map(lambda leaf, n=good: leaf[:n], info))
        record.add(*chunk)
        if good < done:
            raise NonFiniteError(chunk.step, state)
        on_chunk(chunk)
    return state


def _scan(method: Method, sample: Callable[[Key], PyTree], chunk_size: int):
    """Some steps as one program, those beyond the last and all after a non-finite one changing nothing.

    Key, length and data are arguments, so that runs which differ in them alone share a program.
    """

    def advance(key: Key, state: PyTree, first: jax.Array, num_steps: jax.Array):
        def body(carry: tuple[PyTree, jax.Array], step: jax.Array):
            before, alive = carry
            batch_key, step_key = jax.random.split(jax.random.fold_in(key, step))
            after, info = method.step(step_key, before, sample(batch_key))
            alive = alive & is_finite((after, info))
            # The last chunk may be longer than what is left to do.
            keep = alive & (step < num_steps)
            kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), after, before)
            return (kept, alive), (alive, info)

        start = (state, jnp.array(True))
        (after, _), (alive, info) = jax.lax.scan(body, start, first + jnp.arange(chunk_size))
        return after, alive, info

    return _with_data_as_arguments(advance)


def _with_data_as_arguments(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """``jit``, but arrays that the function closes over are arguments of the program, not parts of it."""
    traced = None

    def call(*arguments: PyTree) -> PyTree:
        nonlocal traced
        if traced is None:
            closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
            program = jax.jit(lambda data, leaves: eval_jaxpr(closed.jaxpr, data, *leaves))
            traced = partial(program, closed.consts), jax.tree.structure(shapes)
        program, structure = traced
        return structure.unflatten(program(jax.tree.leaves(arguments)))

    return call
