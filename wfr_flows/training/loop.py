"""One training loop: scanned chunks, and between them progress, checkpoints and the non-finite guard."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from wfr_flows.numerics import combine, partition
from wfr_flows.training.batches import HostBatches, ahead, is_iterable
from wfr_flows.training.checkpoint import CheckpointError
from wfr_flows.training.method import Method
from wfr_flows.training.programs import ChunkPrograms, chunks_of
from wfr_flows.training.resume import Record, next_record
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
    sample: Callable[[Key], PyTree] | Iterable[PyTree],
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

    The scan is compiled once for a method, a sample function and shapes, and kept as long as the two
    functions are. As under `jax.jit`, arrays that they close over are those of the first call.

    Args:
      method: ``init`` and ``step``.
      key: seeds batches and steps.
      state: the state at step ``start``.
      sample: a function ``key -> batch``, traced inside the scan; or an iterable of batches on the host, of
        which step ``k`` gets number ``k`` (with ``start`` the first ones are skipped). They are of one shape,
        and fetched for a chunk while the chunk before it runs. A collection begins anew at its end.
      num_steps: total number of steps.
      start: first step to do.
      chunk_size: steps between two calls of ``on_chunk``.
      on_chunk: called on the host after every chunk.

    Returns:
      The state after ``num_steps`` steps.

    Raises:
      NonFiniteError: a step's state or info is not finite; carries the last good state.
      ValueError: a sample function whose data depend on anything but its key, batches of different shapes,
        or an iterator that ends before the last step.
    """
    host = HostBatches(sample) if is_iterable(sample) else None
    chunks = chunks_of(method, None if host else sample)  # pyright: ignore
    record = next_record()
    if start == 0 and record.begun:
        like = host.take(0, 1, chunk_size) if host else ()
        _, told = chunks.program(chunk_size, key, state, like)
        done = _restored(record, state, told.info, num_steps)
        start, state = done.step, done.state
        on_chunk(done)
    for chunk, finite in _scanned(chunks, host, key, Chunk(start, state, ()), num_steps, chunk_size):
        record.add(chunk.step, partition(chunk.state)[0], chunk.info)
        if not finite:
            raise NonFiniteError(chunk.step, chunk.state)
        on_chunk(chunk)
        state = chunk.state
    return state


def _scanned(
    chunks: ChunkPrograms, host: HostBatches | None, key: Key, begun: Chunk, num_steps: int, chunk_size: int
) -> Iterator[tuple[Chunk, bool]]:
    """Chunk after chunk, and whether all of it was finite; otherwise it ends before the step that broke."""

    def fetch(first: int) -> PyTree:
        return host.take(first, min(chunk_size, num_steps - first), chunk_size) if host else ()

    advance, state, batches = None, begun.state, ahead(lambda: fetch(begun.step))
    for first in range(begun.step, num_steps, chunk_size):
        here = batches()
        if advance is None:
            advance, _ = chunks.program(chunk_size, key, state, here)
        state, alive, info = advance(key, state, first, num_steps, here)
        # While the device works on this chunk.
        batches = ahead(lambda after=first + chunk_size: fetch(after))
        alive, done = jax.device_get(alive), min(chunk_size, num_steps - first)
        good = done if np.all(alive[:done]) else int(np.argmin(alive))
        if good < chunk_size:
            info = jax.tree.map(lambda leaf, n=good: jax.lax.slice_in_dim(leaf, 0, n), info)
        yield Chunk(first + good, state, info), good == done


def _restored(record: Record, state: PyTree, info: PyTree, num_steps: int) -> Chunk:
    """All that an earlier process has done; ``info`` tells the shapes of those of a chunk."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), info)
    arrays, others = partition(state)
    step, arrays, infos = record.restored(arrays, one)
    if step > num_steps:
        raise CheckpointError(f"{step} steps are kept, more than num_steps {num_steps}; begin anew.")
    return Chunk(step, combine(arrays, others), infos)
