"""What a command that trains keeps until it has written its results, for ``--resume``."""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax

from wfr_flows import training
from wfr_flows.cli.directory import making, read_json
from wfr_flows.cli.files import digest, write_atomically
from wfr_flows.cli.options import InputError
from wfr_flows.cli.table import complain
from wfr_flows.training import NonFiniteError

_BESIDE = ("run", "out", "resume", "json", "quiet")


_T = TypeVar("_T")


class Kept:
    """What a command does with a training that diverges: it goes on with the last good state and tells so."""

    def __init__(self, steps_done: Callable[[], int], inputs: Sequence[str]):
        self._steps_done, self._inputs = steps_done, inputs
        self.error: NonFiniteError | None = None

    def trained(self, train: Callable[[], _T]) -> _T:
        """What the function returns; where it turns non-finite, what its last good state gives.

        Raises:
          NonFiniteError: not one step was good.
        """
        try:
            return train()
        except NonFiniteError as error:
            if self._steps_done() == 0:
                raise
            self.error = error
            return error.state

    def summary(self) -> dict[str, Any]:
        """The step that failed, if one did, for the summary."""
        return {} if self.error is None else {"failed_at": self.error.step, "failed_in": self.error.phase}

    def exit_code(self) -> int:
        """1 and a warning where training diverged, else 0; to be asked for after the results are shown."""
        if self.error is None:
            return 0
        complain(f"{self.error} Results are of that state. {_data(self._inputs)}")
        return 1


@contextmanager
def keeping(options: argparse.Namespace, inputs: Sequence[str], *, beside: bool = False) -> Iterator[Kept]:
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
    kept = None
    try:
        with training.resumable(folder) as steps_done:
            kept = Kept(steps_done, inputs)
            yield kept
            if kept.error is not None:
                raise kept.error
    except NonFiniteError as error:
        _close(folder, {**wanted, "failed_at": error.step})
        if kept is None or error is not kept.error:
            error.add_note(_data(inputs))
            raise
        return
    except training.CheckpointError as error:
        raise InputError(f"what is kept in {folder} is damaged; delete it and begin anew.") from error
    except BaseException:
        _close(folder, wanted)
        raise
    shutil.rmtree(folder)


def _data(inputs: Sequence[str]) -> str:
    return f"The data: {', '.join(inputs) or 'none'}."


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
