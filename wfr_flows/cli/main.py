"""Parsing, dispatch and exit codes: 0 done, 1 training failed, 2 unusable input, 130 interrupted."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _Parser(prog="wfr-flows", description="Wasserstein-Fisher-Rao geometry on your data.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for command in _COMMANDS:
        command.add_parser(commands)
    try:
        options = parser.parse_args(arguments)
        return options.run(options)
    except InputError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted; a geodesic run that had begun continues with --resume.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
