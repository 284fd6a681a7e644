"""Times of snapshots: in units to learn in, where neighbours are about 1 apart, and as the user has them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from wfr_flows.cli.options import InputError

# A table's own times and those that an option names may differ by rounding.
_SAME = 1e-9


class TimeUnits(NamedTuple):
    """A piecewise linear map of times, in double precision on the host.

    Attributes:
      time: ``[k]`` times of snapshots as the table has them, increasing.
      node: ``[k]`` what stands for them in training, increasing.
    """

    time: np.ndarray
    node: np.ndarray

    def nodes(self, time) -> np.ndarray:
        """What stands for times between the first and the last."""
        return np.interp(time, self.time, self.node)

    def times(self, node) -> np.ndarray:
        """Times as the table has them, from what stands for them."""
        return np.interp(np.asarray(node, np.float64), self.node, self.time)

    def pace(self, node: float) -> float:
        """``d node/d time`` inside a window: rates in units of training times this are those of the table."""
        at = np.clip(np.searchsorted(self.node, node, side="right") - 1, 0, len(self.node) - 2)
        return float(np.diff(self.node)[at] / np.diff(self.time)[at])


def time_units(time: list[float], *, joint: bool) -> TimeUnits:
    """Every window in a time of its own of length 1; with one field for all, windows of mean length 1."""
    times = np.asarray(time, np.float64)
    count = np.arange(len(times), dtype=np.float64)
    return TimeUnits(times, (times - times[0]) / (times[-1] - times[0]) * count[-1] if joint else count)


def shown_time(time: float, label: Mapping[float, str]) -> str:
    """A time as the table has it, with the label that it stands for."""
    return label.get(time, f"{time:.15g}")


def inner_time(text: str, time: list[float], label: Mapping[float, str]) -> float:
    """The time between the first and the last that ``--hold-out`` names, by its number or its label."""
    try:
        wanted = next((value for value, said in label.items() if said == text), None)
        wanted = float(text) if wanted is None else wanted
    except ValueError:
        wanted = np.nan
    found = [one for one in time[1:-1] if abs(one - wanted) <= _SAME * abs(one)]
    if not found:
        inner = ", ".join(shown_time(one, label) for one in time[1:-1]) or "none"
        raise InputError(f"--hold-out {text} is no time between the ends; those are: {inner}.")
    return found[0]
