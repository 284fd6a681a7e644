"""One picture of dynamics through snapshots: the data, paths coloured by mass, the growth map."""

import jax
import numpy as np

from wfr_flows.dynamics import Trajectory
from wfr_flows.measures import Snapshots
from wfr_flows.plotting.parts import paths_by_weight, some_paths, times

_PATHS = 120


def snapshots(data: Snapshots, trajectory: Trajectory, position: np.ndarray, growth: np.ndarray):
    """Draw snapshots, trajectories and growth in the first two coordinates (or time and the only one).

    Args:
      data: the snapshots.
      trajectory: the first of them, carried through all times.
      position: ``[n, d]``, where growth is known.
      growth: ``[n]``.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    trajectory = jax.tree.map(np.asarray, trajectory)
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    line = position.shape[1] == 1
    colours = times(len(data.time))
    for now, measure, (_, colour) in zip(data.time, data.measure, colours, strict=True):
        left.scatter(*_plane(measure.position, now), s=6, color=colour, linewidths=0, label=f"t = {now:.15g}")
    left.set(title="snapshots")
    left.legend(frameon=False, markerscale=2)
    _paths(figure, middle, trajectory)
    middle.set(title="paths, coloured by mass")
    when = np.empty(len(position))
    for now, row in zip(data.time, data.row, strict=True):
        when[row] = now
    limit = float(np.quantile(np.abs(growth), 0.98)) or 1.0
    points = right.scatter(
        *_plane(position, when), c=growth, s=6, cmap="coolwarm", vmin=-limit, vmax=limit, linewidths=0
    )
    figure.colorbar(points, ax=right, label="d log w/dt")
    right.set(title="growth")
    for axis in (left, middle, right):
        axis.set(xlabel="t" if line else "x₁", ylabel="x" if line else "x₂")
    return figure


def _plane(position, when) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical coordinates; on the line, time and place."""
    position = np.asarray(position)
    if position.shape[-1] == 1:
        return np.broadcast_to(when, position.shape[:-1]), position[..., 0]
    return position[..., 0], position[..., 1]


def _paths(figure, axis, trajectory: Trajectory) -> None:
    chosen = some_paths(trajectory, _PATHS)
    across, along = _plane(trajectory.position[:, chosen], trajectory.time[:, None])
    points = np.stack([across, along], axis=-1).transpose(1, 0, 2)
    paths_by_weight(figure, axis, list(points), trajectory, chosen)
