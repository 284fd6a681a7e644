"""Output directories: what may be written into one, and what is already there."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wfr_flows.cli.options import InputError

# Summaries of long series take some megabytes.
_LARGEST_JSON = 2**27


def check_directory(out: Path) -> None:
    """Refuse an output directory that is a file, or no path at all."""
    try:
        occupied = out.exists() and not out.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"--out cannot be used ({error}); give another directory.") from error
    if occupied:
        raise InputError(f"--out {out} is a file; give a directory.")


def made_by(out: Path, command: str) -> bool:
    """Whether the summary in a directory is that of an earlier run of the command."""
    saved = read_json(out / "summary.json")
    return saved is not None and saved.get("command") == command


def refuse_to_replace(out: Path, results: Sequence[str], inputs: Iterable[str | None], *, ours: bool) -> None:
    """Refuse where results would replace files of something else, or an input.

    Args:
      out: the output directory.
      results: the names that will be written into it.
      inputs: files that the job reads.
      ours: whether an earlier run of the same command wrote what is there.
    """
    paths = [out / name for name in results]
    if not ours and any(path.exists() for path in paths):
        raise InputError(f"--out {out} holds files of something else; give another --out.")
    for name in inputs:
        if name and Path(name).resolve() in [path.resolve() for path in paths]:
            raise InputError(f"{name} lies in --out {out} and would be replaced; give another --out.")


@contextmanager
def making(out: Path) -> Iterator[None]:
    """Make the directory for the body; what cannot be written there is told in one sentence."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}); give another directory."
        ) from error


def read_json(path: Path, remedy: str = "give another --out") -> dict | None:
    """The JSON object in a file, None if there is no file."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"larger than {_LARGEST_JSON} bytes")
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return found
    except RecursionError as error:
        raise InputError(f"{path} is damaged (nested too deeply); {remedy}.") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); {remedy}.") from error
