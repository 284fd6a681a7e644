"""Times of points as numbers, from numbers, dates, labels with numbers in them, or ordered categories."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

# A sign counts where nothing or a blank stands before it: "day -1", but not "day-1".
_NUMBER = re.compile(r"((?<!\S)[-+][0-9]+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?)")
_DAY = 86400.0


class Labels(NamedTuple):
    """Labels of points.

    Attributes:
      text: ``[n]``, strings.
      order: the categories from first to last, where their order is known.
    """

    text: np.ndarray
    order: Sequence[str] | None = None


class Times(NamedTuple):
    """Times of points.

    Attributes:
      value: ``[n]``, float64.
      label: what stands in the file for every time, where that is no number; empty otherwise.
      unit: meaning of the numbers that replace labels, for a message.
    """

    value: np.ndarray
    label: dict[float, str]
    unit: str = ""


def times_of(found: np.ndarray | Labels, *, name: str = "the times") -> Times:
    """Times as numbers in double precision.

    Numbers stay. Dates, as ``2020-01-31`` with or without a time of day, become days since the first. Labels
    that differ in one number alone, as ``day 0`` and ``day 2``, become that number. Other labels are spaced
    evenly where the order of the categories is known.

    Args:
      found: numbers, dates, strings or `Labels`, ``[n]``.
      name: what to call them in an error message.

    Raises:
      ValueError: labels without an order.

    >>> times_of(np.array(["day 10", "day 2"])).value.tolist()
    [10.0, 2.0]
    >>> times_of(np.array(["2020-01-01", "2020-03-01"])).value.tolist()
    [0.0, 60.0]
    """
    labels = found if isinstance(found, Labels) else Labels(np.asarray(found))
    values = labels.text
    if values.dtype.kind in "fiu":
        return Times(values.astype(np.float64), {})
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    text, where = np.unique(values.astype(str), return_inverse=True)
    if labels.order is not None and set(text) - set(labels.order):
        raise ValueError(f"{name} has points without a category; repair or remove them.")
    number, unit = _numbers(list(text), labels.order)
    if number is None:
        shown = ", ".join(f"'{one}'" for one in text[:4]) + (", ..." if len(text) > 4 else "")
        raise ValueError(
            f"{name} holds {shown}, which have no order; give numbers, dates, labels that differ in one"
            " number, or ordered categories."
        )
    label: dict[float, str] = {}
    for one, said in zip(number, text, strict=True):
        label.setdefault(float(one), str(said))
    return Times(np.asarray(number)[where], label, unit)


def _numbers(text: list[str], order: Sequence[str] | None) -> tuple[list[float] | None, str]:
    """One number for each of some labels, and what it means."""
    for read, unit in ((_dates, "days since the first"), (_numbered, "the numbers in them")):
        number = read(text)
        ordered = None if order is None else sorted(range(len(text)), key=lambda at: order.index(text[at]))
        if number is None:
            continue
        if ordered is None or bool(np.all(np.diff([number[at] for at in ordered]) > 0)):
            return number, unit
    if order is None:
        return None, ""
    present = [one for one in order if one in text]
    return [float(present.index(one)) for one in text], "evenly spaced, in the order of the categories"


def _dates(text: list[str]) -> list[float] | None:
    try:
        if not all(re.match(r"[0-9]{4}-", one) for one in text):
            return None
        dates = [datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", one)) for one in text]
        return [(date - min(dates)).total_seconds() / _DAY for date in dates]
    except (TypeError, ValueError):  # no date, or some with a time zone and some without
        return None


def _numbered(text: list[str]) -> list[float] | None:
    """The one number in which labels differ; None where they differ in more."""
    pieces = [_NUMBER.split(one.strip()) for one in text]
    if len({len(one) for one in pieces}) > 1 or len(pieces[0]) < 3:
        return None
    columns = list(zip(*pieces, strict=True))
    if any(len(set(column)) > 1 for column in columns[::2]):
        return None
    varying = [column for column in columns[1::2] if len(set(column)) > 1]
    if len(varying) > 1:
        return None
    return [float(one) for one in (varying or [columns[1]])[0]]
