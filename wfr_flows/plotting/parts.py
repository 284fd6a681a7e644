"""What several figures share: colours of times, smoothed densities."""

import numpy as np

from wfr_flows.measures import Particles


def times(count: int = 5):
    """``(t, colour)`` from start to end."""
    from matplotlib import colormaps  # noqa: PLC0415  slow to import

    return [(float(t), colormaps["viridis"](0.9 * t)) for t in np.linspace(0, 1, count)]


def density(measure: Particles, x: np.ndarray) -> np.ndarray:
    """Weighted density on the grid ``x``, smoothed by a tenth of the spread, so that modes stay apart.

    It integrates to 1 whatever the mass.
    """
    from scipy.ndimage import gaussian_filter1d  # noqa: PLC0415  slow to import

    position, weight = (
        np.asarray(measure.position[:, 0], float),
        np.exp(np.asarray(measure.log_weight, float)),
    )
    spread = np.sqrt(np.cov(position, aweights=weight, ddof=0))
    width = x[1] - x[0]
    edges = np.append(x - 0.5 * width, x[-1] + 0.5 * width)
    height, _ = np.histogram(position, bins=edges, weights=weight / weight.sum())
    return gaussian_filter1d(height / width, max(0.1 * spread / width, 0.5), mode="constant")
