"""What an option may hold, and the one error for all that it may not."""

import argparse
import math


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


def count(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count; give a whole number >= 1")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
