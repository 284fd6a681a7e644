"""What a command that trains keeps until it has written its results, for ``--resume``."""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax

from wfr_flows import training
from wfr_flows.cli.directory import making, read_json
from wfr_flows.cli.files import digest, write_atomically
from wfr_flows.cli.options import InputError

_BESIDE = ("run", "out", "resume", "json", "quiet")


@contextmanager
def keeping(options: argparse.Namespace, inputs: Sequence[str], *, beside: bool = False) -> Iterator[None]:
    """Training in the body is kept, see `training.resumable`, until the body has ended well.

    It is kept in the folder ``unfinished`` of an output directory, or else in ``FILE.unfinished``. What ended
    in a non-finite step stays to be looked at, until a new run replaces it.

    Args:
      options: with ``resume``; all but what is printed and where has to be as it was.
      inputs: the files that the body reads; their contents have to be as they were.
      beside: ``--out`` is a file.

    Raises:
      InputError: there is nothing to resume, or it began otherwise, or is damaged, or would be lost.
    """
    out = options.out
    folder = out.with_name(out.name + ".unfinished") if beside else out / "unfinished"
    settings = folder / "settings.json"
    wanted = _wanted(options, inputs)
    saved = read_json(settings, f"delete {folder}")
    if options.resume and saved is None:
        raise InputError(f"--out {out} holds no run to resume; run without --resume.")
    if saved is None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is of something else; give another --out.")
    if not options.resume and saved is not None:
        if saved.get("failed_at") is None:
            raise InputError(
                f"--out {out} holds an unfinished run; continue with --resume, give another --out, or delete"
                f" {folder}."
            )
        shutil.rmtree(folder)
    if options.resume and saved is not None:
        for name, value in wanted.items():
            if saved.get(name) != value:
                raise InputError(
                    f"the run in {out} has {name} {saved.get(name)}, not {value}; resume it as it began."
                )
    with making(folder):
        write_atomically(settings, json.dumps(wanted, indent=2).encode())
    try:
        with training.resumable(folder):
            yield
    except training.NonFiniteError as error:
        _close(folder, {**wanted, "failed_at": error.step})
        error.add_note(f"The data: {', '.join(inputs) or 'none'}.")
        raise
    except training.CheckpointError as error:
        raise InputError(f"what is kept in {folder} is damaged; delete it and begin anew.") from error
    except BaseException:
        _close(folder, wanted)
        raise
    shutil.rmtree(folder)


def _wanted(options: argparse.Namespace, inputs: Sequence[str]) -> dict:
    wanted = {name: value for name, value in vars(options).items() if name not in _BESIDE}
    wanted |= {f"contents of {name}": digest(name) for name in inputs}
    wanted["float64"] = jax.config.values["jax_enable_x64"]
    return json.loads(json.dumps(wanted, default=str))


def _close(folder: Path, settings: dict) -> None:
    """Leave the folder with its settings, or nothing where nothing is kept."""
    if any(path.is_dir() for path in folder.iterdir()):
        write_atomically(folder / "settings.json", json.dumps(settings, indent=2).encode())
    else:
        shutil.rmtree(folder)
