"""Batches from the host, fetched chunk by chunk for compiled loops."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.typing import PyTree


def is_iterable(sample: Any) -> TypeGuard[Iterable[PyTree]]:
    """Whether a source of batches is an iterable of them, rather than a function of a key.

    Raises:
      ValueError: neither of them, or one batch in their place.
    """
    if callable(sample):
        return False
    one_batch = isinstance(sample, dict | str | np.ndarray | jax.Array) or hasattr(sample, "_fields")
    if one_batch or not isinstance(sample, Iterable):
        raise ValueError(
            f"sample is a {type(sample).__name__}; give a function of a key, or an iterable of batches (for"
            " one batch at every step, lambda key: batch)."
        )
    return True


class HostBatches:
    """The batches of an iterable by the number of their step, stacked chunk by chunk.

    A collection, which can be gone through again, begins anew at its end; an iterator cannot.
    """

    def __init__(self, source: Iterable[PyTree]):
        self._batches, self._next = _repeated(source), 0
        self._first: PyTree = None

    def take(self, first: int, num: int, size: int) -> PyTree:
        """Batches ``first, ..., first + num - 1`` on the device, ``[size, ...]``; the last is repeated.

        Raises:
          ValueError: the iterable has ended, or the shapes of batches differ.
        """
        if num < 1:
            return ()
        while self._next < first:
            self._one()
        batches = [self._one() for _ in range(num)]
        batches += batches[-1:] * (size - num)
        stacked = jax.tree.map(lambda *leaves: _stack(leaves), *batches)
        return jax.device_put(stacked)

    def _one(self) -> PyTree:
        try:
            batch = next(self._batches)
        except StopIteration:
            raise ValueError(
                f"sample has ended after {self._next} batches; give an iterator of as many as there are"
                " steps, or a collection such as a list, which begins anew."
            ) from None
        if self._next == 0:
            self._first = _shapes(batch)
        elif _shapes(batch) != self._first:
            raise ValueError(
                f"batch {self._next} of sample has shapes {_shapes(batch)}, the first {self._first}; give all"
                " the same shape (a loader of data: leave out the incomplete last batch)."
            )
        self._next += 1
        return batch


def ahead(fetch: Callable[[], PyTree]) -> Callable[[], PyTree]:
    """Fetch now, and return or raise when called: what goes wrong must not lose the steps on their way."""
    try:
        found = fetch()
    except Exception as error:
        failed = error

        def again() -> PyTree:
            raise failed

        return again
    return lambda: found


def _repeated(source: Iterable[PyTree]) -> Iterator[PyTree]:
    while True:
        passed = iter(source)
        empty = True
        for batch in passed:
            empty = False
            yield batch
        if empty or passed is source:
            return


def _shapes(batch: PyTree) -> PyTree:
    return jax.tree.map(np.shape, batch)


def _stack(leaves: tuple[Any, ...]) -> Any:
    on_device = any(isinstance(leaf, jax.Array) for leaf in leaves)
    return jnp.stack(leaves) if on_device else np.stack(leaves)
