"""Reading the ends of a job and writing its results."""

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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


def check_mass(name: str, measure: Particles) -> None:
    """Refuse weights whose sum the precision cannot hold, where masses count."""
    mass = float(measure.mass)
    if not 0 < mass < math.inf:
        raise InputError(
            f"the weights of {name} have the sum {mass:g} in {measure.log_weight.dtype}; bring them to a"
            " common scale."
        )


def check_new_file(path: Path, option: str, endings: Sequence[str]) -> None:
    """Refuse a file that could not be written, or would replace something, before anything is computed."""
    if path.suffix.lower() not in endings:
        kinds = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise InputError(f"{option} {path} has the ending '{path.suffix}'; give a {kinds} file.")
    with told_in_one_sentence():
        if not path.parent.is_dir():
            raise InputError(f"{option} {path} lies in no existing directory; make {path.parent} first.")
        if path.exists():
            raise InputError(f"{option} {path} exists; remove it or give another name.")


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """What keeps the body from writing a file is told in one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{option} {path} cannot be written ({error.strerror}); give another name."
        ) from error


def digest(name: str | None) -> str:
    """Identifies the contents of a file, so that a changed one is not resumed; empty where there is none."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if name and Path(name).is_file() else ""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader or a killed process never sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def to_json(summary: Any) -> str:
    """JSON, with null for numbers that are not finite, which JSON does not have."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(summary), indent=2, allow_nan=False)


def write_json(path: Path, summary: Any) -> None:
    """Write what `to_json` makes of it."""
    write_atomically(path, to_json(summary).encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as NPZ."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def write_points(path: Path, position: np.ndarray, **columns: np.ndarray) -> None:
    """Write points, and columns of one number a point: CSV with the header ``x1..xd``, NPZ, NPY."""
    kind = path.suffix.lower()
    if kind == ".npz":
        write_arrays(path, {"position": position, **columns})
        return
    buffer = io.BytesIO()
    if kind == ".npy":
        assert not columns
        np.save(buffer, position, allow_pickle=False)
    else:
        header = [f"x{i + 1}" for i in range(position.shape[1])] + list(columns)
        table = np.column_stack([position, *columns.values()])
        digits = "%.9g" if position.dtype == np.float32 else "%.17g"
        np.savetxt(buffer, table, fmt=digits, delimiter=",", header=",".join(header), comments="")
    write_atomically(path, buffer.getvalue())


def write_figure(path: Path, figure) -> None:
    """Write a matplotlib figure in the format that the ending of ``path`` names."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, buffer.getvalue())


def _nameless(name: str) -> bool:
    return name.lower().endswith(".npy")
