"""Trainings that go on where an interrupted process left them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.training.checkpoint import latest_step, restore, save
from wfr_flows.typing import PyTree

_RECORDS: ContextVar[tuple[Path, float, list["Record"]] | None] = ContextVar("records", default=None)


@contextmanager
def resumable(directory: str | Path, *, seconds: float = 5.0) -> Iterator[Callable[[], int]]:
    """Within the body every `run` keeps its state and infos in the directory, and goes on from what is there.

    Runs are told apart by their order, the first in ``directory/0``. As a run depends on its arguments alone,
    a body that is interrupted and begun again with the same ones ends as if it had not been. The directory
    remains; delete it when the body is done.

    Args:
      directory: made at the first save.
      seconds: between saves, which happen between chunks. An exception in the body saves all that was done.

    Yields:
      A function without arguments that returns the number of good steps so far, of all runs together.

    Raises:
      CheckpointError: on the way, where a checkpoint does not fit the run.
    """
    records: list[Record] = []
    token = _RECORDS.set((Path(directory), seconds, records))
    try:
        yield lambda: sum(record.step for record in records)
    except BaseException:
        for record in records:
            record.save()
        raise
    finally:
        _RECORDS.reset(token)


class Record:
    """What one run has done so far, in memory, and at times on disk; nothing without a folder.

    Attributes:
      begun: whether there is something to restore.
      step: number of good steps done.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 0.0):
        self._folder, self._seconds, self._saved_at = folder, seconds, time.monotonic()
        self.step, self._state, self._infos, self._saved = 0, None, [], True
        self._last = None if folder is None else latest_step(folder)
        self.begun = self._last is not None

    def restored(self, state: PyTree, info: PyTree) -> tuple[int, PyTree, PyTree]:
        """Step, state and infos of the last save; ``state`` and ``info``, of one step, tell the shapes."""
        step = self._last
        assert step is not None
        assert self._folder is not None
        infos = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((step, *leaf.shape), leaf.dtype), info)
        like = {"state": jax.tree.map(jnp.asarray, state), "info": infos}
        found = jax.tree.map(jnp.asarray, restore(self._folder, like, step))
        self.step, self._state, self._infos = step, found["state"], [found["info"]]
        return step, found["state"], found["info"]

    def add(self, step: int, state: PyTree, info: PyTree) -> None:
        """The chunk that ends at a step; saved if the last save was long ago."""
        if self._folder is None:
            return
        # Nothing is lost where nothing was done.
        self.step, self._state, self._saved = step, state, step == 0
        self._infos.append(jax.tree.map(np.asarray, info))
        if time.monotonic() - self._saved_at > self._seconds:
            self.save()

    def save(self) -> None:
        """Save what has not been saved."""
        if self._saved or self._folder is None:
            return
        infos = jax.tree.map(lambda *leaves: np.concatenate(leaves), *self._infos)
        save(self._folder, self.step, {"state": self._state, "info": infos})
        self._infos, self._saved, self._saved_at = [infos], True, time.monotonic()


def next_record() -> Record:
    """The record of the next run within `resumable`; one that keeps nothing outside."""
    found = _RECORDS.get()
    if found is None:
        return Record()
    directory, seconds, records = found
    records.append(Record(directory / str(len(records)), seconds))
    return records[-1]
