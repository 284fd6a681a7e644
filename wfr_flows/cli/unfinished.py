"""What a command that trains keeps until it has written its results, for ``--resume``."""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax

from wfr_flows import training
from wfr_flows.cli.directory import making, read_json
from wfr_flows.cli.files import digest, write_atomically
from wfr_flows.cli.options import InputError

_BESIDE = ("run", "out", "resume", "json", "quiet")


@contextmanager
def keeping(options: argparse.Namespace, inputs: Sequence[str]) -> Iterator[None]:
    """Training in the body is kept, see `training.resumable`, until the body has ended well.

    It is kept in the folder ``unfinished`` of an output directory, or ``FILE.unfinished`` beside a file.

    Args:
      options: with ``resume``; all but what is printed and where has to be as it was.
      inputs: the files that the body reads; their contents have to be as they were.

    Raises:
      InputError: there is nothing to resume, or it began otherwise, or it would be lost.
    """
    out = options.out
    folder = out.with_name(out.name + ".unfinished") if out.suffix else out / "unfinished"
    wanted = {name: value for name, value in vars(options).items() if name not in _BESIDE}
    wanted |= {f"contents of {name}": digest(name) for name in inputs}
    wanted["float64"] = jax.config.values["jax_enable_x64"]
    wanted = json.loads(json.dumps(wanted, default=str))
    saved = read_json(folder / "settings.json")
    if options.resume and saved is None:
        raise InputError(f"--out {out} holds no run to resume; run without --resume.")
    if not options.resume and saved is not None:
        raise InputError(
            f"--out {out} holds an unfinished run; continue with --resume, give another --out, or"
            f" delete {folder}."
        )
    for name, value in wanted.items():
        if saved is not None and saved.get(name) != value:
            raise InputError(
                f"the run in {out} has {name} {saved.get(name)}, not {value}; resume it as it began."
            )
    with making(folder):
        write_atomically(folder / "settings.json", json.dumps(wanted, indent=2).encode())
    try:
        with training.resumable(folder):
            yield
    except BaseException:
        if not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
