"""One picture of a learned posterior: the weighted data, the generated samples, the learned density."""

from collections.abc import Callable

import numpy as np

from wfr_flows.measures import Particles

_COORDINATES = 3
_BINS = 60
_OUTSIDE = 0.001
_LEVELS = (0.9, 0.5)
_DATA = {"color": "tab:blue", "alpha": 0.35}
_SHADES = [("tab:blue", 0.35), ("tab:blue", 0.6)]
_GENERATED = {"color": "tab:orange", "linewidth": 1.6}


def posterior(data: Particles, generated: Particles, *, log_density: Callable | None = None):
    """Draw a learned posterior beside what it was learned from.

    In one dimension weighted histograms of both, and the learned density. In more the first three
    coordinates: marginals on the diagonal, below it the smallest regions that hold half and nine tenths of
    the mass of every pair.

    Args:
      data: weighted samples that the model was learned from.
      generated: weighted samples of the model.
      log_density: ``x: [n, 1] -> [n]`` of the model, drawn in one dimension.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    dim = min(data.position.shape[1], _COORDINATES)
    clouds = [
        (np.asarray(measure.position, float), np.exp(np.asarray(measure.normalise().log_weight, float)))
        for measure in (data, generated)
    ]
    frames = [_frame([(position[:, i], weight) for position, weight in clouds]) for i in range(dim)]
    if dim == 1:
        figure = Figure(figsize=(8, 5), layout="constrained")
        axis = figure.subplots()
        _marginal(axis, clouds, 0, frames[0])
        if log_density is not None:
            x = np.linspace(*frames[0], 400)
            axis.plot(x, np.exp(np.asarray(log_density(x[:, None]))), color="black", label="learned density")
        axis.set(xlabel="x₁", ylabel="density", title="posterior")
        axis.legend(frameon=False)
        return figure
    figure = Figure(figsize=(3.4 * dim, 3.2 * dim), layout="constrained")
    axes = figure.subplots(dim, dim)
    for i in range(dim):
        _marginal(axes[i, i], clouds, i, frames[i])
        axes[i, i].set(xlabel="x₁x₂x₃"[2 * i : 2 * i + 2], yticks=[])
        for j in range(dim):
            if j > i:
                axes[i, j].axis("off")
            elif j < i:
                _pair(axes[i, j], clouds, (j, i), (frames[j], frames[i]))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 1].legend(handles, labels, frameon=False, loc="center")
    figure.suptitle("posterior: marginals, regions of 50 % and 90 % of the mass")
    return figure


def _frame(samples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """An interval around all but a thousandth of either measure at either end."""
    ends = []
    for position, weight in samples:
        order = np.argsort(position)
        share = np.cumsum(weight[order])
        least, most = np.searchsorted(share, [_OUTSIDE, (1 - _OUTSIDE) * share[-1]])
        ends.append((position[order[least]], position[order[min(most, position.size - 1)]]))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    margin = 0.1 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _marginal(axis, clouds, i: int, frame: tuple[float, float]) -> None:
    edges = np.linspace(*frame, _BINS + 1)
    styles = ({"histtype": "stepfilled", **_DATA}, {"histtype": "step", **_GENERATED})
    for (position, weight), style, name in zip(clouds, styles, ("data", "generated"), strict=True):
        # Divided by hand: what lies outside the frame still counts in the mass.
        axis.hist(position[:, i], bins=edges, weights=weight / (edges[1] - edges[0]), label=name, **style)
    axis.set(xlim=frame)


def _pair(
    axis, clouds, pair: tuple[int, int], frames: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415  slow to import

    edges = [np.linspace(low, high, _BINS + 1) for low, high in frames]
    middle = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    for index, (position, weight) in enumerate(clouds):
        count, *_ = np.histogram2d(*position[:, pair].T, bins=edges, weights=weight)
        height = gaussian_filter(count, 2.0, mode="constant").T
        levels = _region_levels(height)
        if len(levels) < len(_LEVELS):
            axis.scatter(*position[:, pair].T, s=3, color=(_DATA, _GENERATED)[index]["color"])
        elif index == 0:
            axis.contourf(*middle, height, levels=[*levels, height.max()], colors=_SHADES)
        else:
            axis.contour(
                *middle, height, levels=levels, colors=_GENERATED["color"], linewidths=_GENERATED["linewidth"]
            )
    axis.set(xlabel="x₁x₂x₃"[2 * pair[0] :][:2], ylabel="x₁x₂x₃"[2 * pair[1] :][:2])
    axis.set(xlim=frames[0], ylim=frames[1])


def _region_levels(height: np.ndarray) -> list[float]:
    """Heights above which the given shares of the mass lie, from low to high."""
    ordered = np.sort(height.ravel())[::-1]
    share = np.cumsum(ordered)
    levels = [float(ordered[np.searchsorted(share, level * share[-1])]) for level in _LEVELS]
    return sorted({level for level in levels if 0 < level < height.max()})
