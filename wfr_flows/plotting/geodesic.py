"""One picture of a learned geodesic: densities forward and reverse, trajectories, weights."""

from collections.abc import Callable

import jax
import numpy as np

from wfr_flows.dynamics import Trajectory
from wfr_flows.measures import Particles
from wfr_flows.plotting.parts import density, paths_by_weight, some_paths, times
from wfr_flows.typing import ArrayLike

_PATHS = 60


def geodesic(
    forward: Trajectory,
    reverse: Trajectory,
    *,
    exact_geodesic: Callable[[ArrayLike], Particles] | None = None,
    source_log_density: Callable | None = None,
    target_log_density: Callable | None = None,
):
    """Draw a learned geodesic.

    Left to right: weighted densities over time, forward and reverse (one dimension), or weighted particles at
    start, middle and end (first two coordinates); trajectories coloured by weight; weights at the end.

    Args:
      forward, reverse: trajectories with normalised weights.
      exact_geodesic: ``t -> Particles``, drawn dashed beside the forward densities.
      source_log_density, target_log_density: drawn beside the ends, where known.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    forward, reverse = jax.tree.map(np.asarray, (forward, reverse))
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    axes = figure.subplots(2, 2)
    if forward.position.shape[-1] == 1:
        _densities(axes[0, 0], forward, "forward: learned (solid), exact (dashed)", exact_geodesic)
        _densities(axes[0, 1], reverse, "reverse: generated (solid), source (dashed)", None)
        _known(axes[0, 0], target_log_density)
        _known(axes[0, 1], source_log_density)
        _paths_in_time(figure, axes[1, 0], forward)
    else:
        _clouds(axes[0, 0], forward, "forward")
        _clouds(axes[0, 1], reverse, "reverse")
        _paths_in_plane(figure, axes[1, 0], forward)
    _weights(figure, axes[1, 1], forward, reverse)
    return figure


def _densities(axis, trajectory: Trajectory, title: str, exact) -> None:
    low, high = float(trajectory.position.min()), float(trajectory.position.max())
    x = np.linspace(low - 1e-3, high + 1e-3, 300)
    for index, colour in _snapshots(trajectory):
        time = float(trajectory.time[index])
        axis.plot(x, density(trajectory.at(index), x), color=colour, label=f"t = {time:.2f}")
        if exact is not None:
            axis.plot(x, density(exact(time), x), color=colour, linestyle="--", linewidth=1)
    axis.set(title=title, xlabel="x", ylabel="density")
    axis.legend(frameon=False)


def _known(axis, log_density) -> None:
    if log_density is None:
        return
    low, high = axis.get_xlim()
    x = np.linspace(low, high, 400)
    axis.plot(
        x, np.exp(jax.jit(jax.vmap(log_density))(x[:, None])), color="black", linestyle="--", linewidth=1
    )


def _clouds(axis, trajectory: Trajectory, title: str) -> None:
    for index, colour in _snapshots(trajectory, 3):
        position = np.asarray(trajectory.position[index])
        weight = np.exp(trajectory.log_weight[index])
        size = 4 * weight / weight.mean()
        axis.scatter(
            *position[:, :2].T,
            s=size,
            color=colour,
            alpha=0.4,
            linewidths=0,
            label=f"t = {float(trajectory.time[index]):.2f}",
        )
    axis.set(title=f"{title}: particles, area by weight", xlabel="x₁", ylabel="x₂", aspect="equal")
    axis.legend(frameon=False)


def _paths_in_time(figure, axis, trajectory: Trajectory) -> None:
    time = np.asarray(trajectory.time)
    chosen = some_paths(trajectory, _PATHS)
    points = [
        np.stack([time, path[:, 0]], axis=1)
        for path in np.asarray(trajectory.position).transpose(1, 0, 2)[chosen]
    ]
    paths_by_weight(figure, axis, points, trajectory, chosen)
    axis.set(title="trajectories, coloured by weight", xlabel="t", ylabel="x")


def _paths_in_plane(figure, axis, trajectory: Trajectory) -> None:
    chosen = some_paths(trajectory, _PATHS)
    points = list(np.asarray(trajectory.position)[:, chosen, :2].transpose(1, 0, 2))
    paths_by_weight(figure, axis, points, trajectory, chosen)
    axis.set(title="trajectories, coloured by weight", xlabel="x₁", ylabel="x₂", aspect="equal")


def _weights(figure, axis, forward: Trajectory, reverse: Trajectory) -> None:
    if forward.position.shape[-1] > 1:
        for trajectory, name in ((forward, "forward, t = 1"), (reverse, "reverse, t = 0")):
            axis.hist(_relative_weight(trajectory), bins=60, histtype="step", label=name)
        axis.set(title="weights at the end", xlabel="n·w", ylabel="particles", yscale="log")
    else:
        for trajectory, name in ((forward, "forward, t = 1"), (reverse, "reverse, t = 0")):
            axis.scatter(trajectory.position[0, :, 0], _relative_weight(trajectory), s=2, label=name)
        axis.set(
            title="weight at the end against start position",
            xlabel="x at the start",
            ylabel="n·w",
            yscale="log",
        )
    axis.legend(frameon=False)


def _relative_weight(trajectory: Trajectory) -> np.ndarray:
    return np.exp(trajectory.log_weight[-1]) * trajectory.log_weight.shape[1]


def _snapshots(trajectory: Trajectory, count: int = 5):
    last = trajectory.time.shape[0] - 1
    return [(round(last * share), colour) for share, colour in times(count)]
