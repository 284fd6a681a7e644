"""What is printed: results as a table for people or as JSON for programs, and what went wrong."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wfr_flows.cli.files import to_json


def screen(options: argparse.Namespace) -> Console:
    """Where progress and tables go: nowhere with ``--quiet``, beside the results with ``--json``."""
    return Console(stderr=options.json, quiet=options.quiet, highlight=False)


def printed_as_json(summary: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether ``--json`` was asked for; then the summary has been printed."""
    if options.json:
        sys.stdout.write(to_json(summary) + "\n")
    return options.json


def show(
    summary: dict[str, Any], rows: Sequence[tuple[str, str]], title: str, options: argparse.Namespace
) -> None:
    """Print the summary with ``--json``, otherwise the rows and where the file is."""
    if printed_as_json(summary, options):
        return
    console = screen(options)
    table = Table(title=escape(title), show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"Written to {options.out}", markup=False)


def complain(message: str) -> None:
    """Print one sentence on standard error, under the name of the program."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"wfr-flows: {message}", markup=False)
