"""One table of points with times as one measure for every time."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wfr_flows.measures.particles import Particles

# Sums of a few decimals differ by less than so many units in the last place.
_ROUNDING = 32


class Snapshots(NamedTuple):
    """Weighted points at several times, mass 1 at the first.

    Attributes:
      time: increasing, Python numbers, so that none loses digits.
      measure: one `Particles` for every time.
      row: for every time the indices ``[n]`` of its points in the table.
    """

    time: list[float]
    measure: list[Particles]
    row: list[np.ndarray]

    def without(self, time: float) -> "Snapshots":
        """All but one time."""
        kept = [index for index, other in enumerate(self.time) if other != time]
        return Snapshots(
            [self.time[index] for index in kept],
            [self.measure[index] for index in kept],
            [self.row[index] for index in kept],
        )


def by_time(points: Particles, time: np.ndarray) -> Snapshots:
    """Split a table by time; masses are relative to that of the first time.

    Times that differ by rounding alone, as .3 and .1 + .2, are one.

    Args:
      points: of all times.
      time: ``[n]``, one of each point.

    Raises:
      ValueError: times that are not finite, fewer than two of them, one without mass, or masses whose ratio
        the precision cannot hold.
    """
    time = np.asarray(time, np.float64)
    if not np.isfinite(time).all():
        raise ValueError("some times are not finite; repair or remove these rows.")
    values, index = np.unique(time, return_inverse=True)
    apart = np.diff(values) > _ROUNDING * np.spacing(np.abs(values[1:]))
    index = np.concatenate([[0], np.cumsum(apart)])[index]
    values = values[np.concatenate([[True], apart])]
    if len(values) < 2:
        raise ValueError(f"there is one time only, {values[0]:.15g}; give points at two times or more.")
    rows = [np.flatnonzero(index == at) for at in range(len(values))]
    # By numpy: every snapshot has its own shape, and jax would compile every operation for it.
    position, log_weight = (np.asarray(leaf) for leaf in points)
    log_mass = [np.logaddexp.reduce(log_weight[row]) for row in rows]
    largest = 0.5 * np.log(np.finfo(log_weight.dtype).max)
    for value, mass in zip(values, log_mass, strict=True):
        if mass == -np.inf:
            raise ValueError(f"the points at time {value:.15g} have no mass; give weights or remove them.")
        if abs(mass - log_mass[0]) > largest:
            raise ValueError(
                f"the mass at time {value:.15g} is exp({mass - log_mass[0]:.4g}) times that at the first"
                " time; bring the weights to a common scale."
            )
    measures = [
        Particles(jnp.asarray(position[row]), jnp.asarray(log_weight[row] - log_mass[0])) for row in rows
    ]
    return Snapshots([float(value) for value in values], measures, rows)
