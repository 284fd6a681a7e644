"""What several figures share: colours of times, smoothed densities, paths."""

import numpy as np

from wfr_flows.dynamics import Trajectory
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


def some_paths(trajectory: Trajectory, count: int) -> np.ndarray:
    """Indices of at most ``count`` particles of a trajectory, none of them without weight."""
    present = np.flatnonzero(np.isfinite(trajectory.log_weight[0]))
    return present[np.linspace(0, present.size - 1, min(count, present.size)).astype(int)]


def paths_by_weight(
    figure, axis, points: list[np.ndarray], trajectory: Trajectory, chosen: np.ndarray
) -> None:
    """Draw lines ``[k, 2]`` of the chosen particles, coloured by how their weight changes."""
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    log_weight = trajectory.log_weight[:, chosen]
    ratio = (log_weight - log_weight[0]) / np.log(10)
    segments = np.concatenate([np.stack([path[:-1], path[1:]], axis=1) for path in points])
    limit = max(1e-3, float(np.abs(ratio).max()))
    lines = LineCollection(list(segments), cmap="coolwarm", linewidths=1)
    lines.set_array((0.5 * (ratio[:-1] + ratio[1:])).T.ravel())
    lines.set_clim(-limit, limit)
    axis.add_collection(lines)
    axis.autoscale()
    figure.colorbar(lines, ax=axis, label="log₁₀ w(t)/w(0)")
