"""How far a job is and how long its stages took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Clock:
    """Seconds per stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body under a name."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


class Bars:
    """Progress bars of the phases of a training, with the mean losses of the last chunk."""

    def __init__(self, console: Console):
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, kind, error, trace):
        self._progress.stop()

    def add(self, phase: str, num_steps: int) -> None:
        """Begin a phase; until its first chunk has run it is being compiled."""
        self._tasks[phase] = self._progress.add_task(phase, total=num_steps, terms="compiling")

    def show(self, phase: str, step: int, **terms: jax.Array) -> None:
        """``step`` steps are done; ``terms`` are the values of the last chunk."""
        text = "  ".join(f"{name} {float(jnp.mean(values)):.4f}" for name, values in terms.items())
        self._progress.update(self._tasks[phase], completed=step, terms=text)
