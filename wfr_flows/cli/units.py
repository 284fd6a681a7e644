"""The units that commands learn in: one spread for all coordinates, which keeps the geometry."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wfr_flows.measures import Particles
from wfr_flows.typing import Array


class Units(NamedTuple):
    """``x -> (x - center)/spread``.

    Attributes:
      center: ``[d]``.
      spread: one standard deviation of all coordinates together; 1 where all points are the same.
    """

    center: np.ndarray
    spread: float

    def __call__(self, measure: Particles) -> Particles:
        position = (np.asarray(measure.position, np.float64) - self.center) / self.spread
        return measure._replace(position=jnp.asarray(position, measure.position.dtype))

    def back(self, position: Array | np.ndarray) -> np.ndarray:
        """Points in the units of the files."""
        position = np.asarray(position)
        return (position * self.spread + self.center).astype(position.dtype)


def units_of(measures: Sequence[Particles]) -> Units:
    """Units of some measures together, each in as equal a part as the others whatever its mass; float64."""
    ends = [np.asarray(m.position, np.float64) for m in measures]
    shares = [np.asarray(m.normalise().weight, np.float64) for m in measures]
    shares = [w / w.sum() for w in shares]
    center = np.mean([w @ x for w, x in zip(shares, ends, strict=True)], axis=0)
    square = np.mean([w @ np.mean((x - center) ** 2, axis=1) for w, x in zip(shares, ends, strict=True)])
    # The mean of equal numbers is them only up to rounding.
    rounding = 1e-12 * max(np.max(np.abs(x)) for x in ends)
    return Units(center, float(np.sqrt(square)) if np.sqrt(square) > rounding else 1.0)
