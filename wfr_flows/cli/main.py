"""Parsing, dispatch and exit codes: 0 done, 1 training failed, 2 unusable input, 130 interrupted."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import NoReturn

import jax
import platformdirs

from wfr_flows.cli import (
    density,
    distance,
    filtering,
    generate,
    generate_from,
    geodesic,
    posterior,
    ratio,
    sample,
    snapshots,
    transport,
)
from wfr_flows.cli.options import InputError
from wfr_flows.cli.table import complain
from wfr_flows.measures import ReadingNote
from wfr_flows.training import NonFiniteError

_COMMANDS = (
    geodesic,
    distance,
    posterior,
    generate,
    density,
    snapshots,
    sample,
    generate_from,
    transport,
    ratio,
    filtering,
)

_CACHE = {
    # A run leaves some 3 MB, a long one more.
    "jax_compilation_cache_max_size": (-1, 2**29),
    "jax_persistent_cache_min_compile_time_secs": (1.0, 0.0),
}
"""JAX's own setting, and ours in its place."""


_NEGATIVE_NUMBER = r"-(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$|-(?i:inf|infinity|nan)$"


class _Parser(argparse.ArgumentParser):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # argparse takes -8e6 for the name of an option, not for a number.
        self._negative_number_matcher = re.compile(_NEGATIVE_NUMBER)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _Parser(
        prog="wfr-flows",
        description="Wasserstein-Fisher-Rao geometry on your data.",
        epilog="exit codes: 0 done, 1 training failed, 2 unusable input, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"wfr-flows {version('wfr-flows')}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for command in _COMMANDS:
        command.add_parser(commands)
    try:
        options = parser.parse_args(arguments)
        _keep_programs()
        with _notes_told():
            return options.run(options)
    except InputError as error:
        complain(str(error))
        return 2
    except NonFiniteError as error:
        complain(" ".join([str(error), *getattr(error, "__notes__", [])]))
        return 1
    except KeyboardInterrupt:
        complain("interrupted; where it trained, --resume continues.")
        return 130


@contextmanager
def _notes_told() -> Iterator[None]:
    """What readers note of a file is one sentence on standard error each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ReadingNote)
        show = warnings.showwarning

        def told(message, category, *where) -> None:
            if issubclass(category, ReadingNote):
                complain(str(message))
            else:
                show(message, category, *where)

        warnings.showwarning = told
        yield


def _keep_programs() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX has been told where, or not to.

    What the user has set, in the environment or in `jax.config`, stays.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] is not None or not settings["jax_enable_compilation_cache"]:
        return
    folder = platformdirs.user_cache_path("wfr_flows") / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK | os.X_OK):  # Nowhere to keep them: they are compiled every time.
        return
    for name, (usual, ours) in _CACHE.items():
        if name.upper() not in os.environ and settings[name] == usual:
            jax.config.update(name, ours)
    jax.config.update("jax_compilation_cache_dir", str(folder))


if __name__ == "__main__":
    sys.exit(main())
