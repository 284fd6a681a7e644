"""Reading the ends of a job and writing its results."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wfr_flows.cli.options import InputError
from wfr_flows.measures import Particles, read_particles


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """What reading the input raises becomes an `InputError`; all these messages are one sentence."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def read_end(name: str, weights: str | None) -> Particles:
    """The weighted points of a file. An NPY file has no names: beside a table with weights it has none."""
    return read_particles(name, weight=None if _nameless(name) else weights)


def check_weights(weights: str | None, files: Sequence[str]) -> None:
    """Refuse ``--weights`` where it names nothing."""
    if weights is None:
        return
    if not files:
        raise InputError(f"--weights {weights} names a column of a file, and no file is given.")
    if all(_nameless(name) for name in files):
        raise InputError(f"--weights {weights} names a column, and an NPY file has none; give CSV or NPZ.")


def check_dimensions(source: int, target: int) -> None:
    """Refuse ends in different spaces."""
    if source != target:
        raise InputError(f"the source has {source} coordinates and the target {target}; give both the same.")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader or a killed process never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def write_figure(path: Path, figure) -> None:
    """Write a matplotlib figure in the format that the ending of ``path`` names."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, buffer.getvalue())


def _nameless(name: str) -> bool:
    return name.lower().endswith(".npy")
