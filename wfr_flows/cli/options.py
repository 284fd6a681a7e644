"""What an option may hold, and the one error for all that it may not."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


class InputError(Exception):
    """Input that cannot be used; the message is one sentence for the user."""


def positive_or_inf(text: str) -> float:
    """A length scale: a number > 0, or inf."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive; give a number > 0, or inf")
    return value


def positive(text: str) -> float:
    """A finite number > 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not positive and finite; give a number > 0")
    return value


def non_negative(text: str) -> float:
    """A finite number >= 0, to weigh a term with."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no weight; give a number >= 0")
    return value


def seed(text: str) -> int:
    """A whole number that fits 32 bits."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no seed; give a whole number from 0 to 2**32 - 1")
    return int(text)


MOST = 10**9
"""Largest count of anything."""

MOST_UNITS = 8192
"""Largest width of a network: a layer of so many takes 256 MiB in single precision."""

MOST_STEPS = 10**4
"""Largest number of Runge-Kutta steps of a flow."""


def count(text: str) -> int:
    """A whole number >= 1."""
    return _count(text, 1, MOST)


def count_or_zero(text: str) -> int:
    """A whole number >= 0, of steps that may be left out."""
    return _count(text, 0, MOST)


def width(text: str) -> int:
    """Width of a network."""
    return _count(text, 1, MOST_UNITS)


def flow_steps(text: str) -> int:
    """Number of Runge-Kutta steps."""
    return _count(text, 1, MOST_STEPS)


def _count(text: str, least: int, most: int) -> int:
    # The first test first: int refuses strings of thousands of digits.
    if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        shown = text if len(text) < 40 else f"{text[:20]}..."
        raise argparse.ArgumentTypeError(f"{shown} is no count; give a whole number >= {least} and <= {most}")
    return int(text)


def subcommand(
    commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """The parser of a subcommand, beside the others; its description keeps its lines."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  wfr-flows {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_out(parser: argparse.ArgumentParser, default: str, kinds: str | None = None) -> None:
    """``--out``: a directory, or a new file of one of the kinds."""
    said = "output directory" if kinds is None else f"a new {kinds} file"
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY" if kinds is None else "FILE",
        default=Path(default),
        help=f"{said} (default {default})",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """``--seed``."""
    parser.add_argument("--seed", type=seed, default=0, help="whole number >= 0 (default 0)")


def add_quick(parser: argparse.ArgumentParser) -> None:
    """``--quick``, of commands that train."""
    parser.add_argument("--quick", action="store_true", help="a smaller, rougher run")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """``--resume``, of commands that train."""
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run, given the options it began with"
    )


def add_printing(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")


def add_run(parser: argparse.ArgumentParser, default: str, kinds: str | None = None) -> None:
    """What every long command has: ``--out`` (see `add_out`), ``--seed``, ``--quick``, printing."""
    add_out(parser, default, kinds)
    add_seed(parser)
    add_quick(parser)
    add_printing(parser)


def add_training(
    group, *, matching_steps: str, refinement_steps: str, batch: str, matching_weight: float
) -> None:
    """Add the options that tune a learned flow; the texts tell the defaults that the command picks."""
    add = group.add_argument
    add("--width", type=width, default=64, help="width of the potential network (64)")
    add("--matching-steps", type=count, help=f"warm-start steps ({matching_steps})")
    add("--refinement-steps", type=count, help=f"UOT-gen steps ({refinement_steps})")
    add("--batch", type=count, help=f"particles per refinement step at either end ({batch})")
    add("--num-steps", type=flow_steps, default=8, help="Runge-Kutta steps while training (8)")
    add("--action-weight", type=non_negative, default=0.0, help="gamma1 (0)")
    add("--velocity-weight", type=non_negative, default=0.0, help="gamma2 (0)")
    add(
        "--matching-weight",
        type=non_negative,
        default=matching_weight,
        help=f"of the matching loss in refinement ({matching_weight:g})",
    )


def pick(options: argparse.Namespace, name: str, full: int, quick: int) -> int:
    """An option that was given, or else its default in a full or a quick run."""
    value = getattr(options, name)
    return value if value is not None else quick if options.quick else full


def _number(text: str) -> float:
    try:
        if "_" in text:
            raise ValueError("Python reads 1_000 as a number; files do not")
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
