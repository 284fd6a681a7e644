"""One picture of an exact geodesic: what travels, what dies in place and what is born there."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wfr_flows.measures import Particles
from wfr_flows.plotting.parts import density, times
from wfr_flows.static import Diracs
from wfr_flows.typing import ArrayLike

_LINES = 500
_FINE = 33
_LARGEST_AREA = 400.0
_INK = 5000.0
_KINDS = {"travels": "tab:blue", "dies in place": "tab:red", "is born in place": "tab:green"}


class _Frame(NamedTuple):
    """Travelling Diracs at one time, in numpy."""

    position: np.ndarray
    mass: np.ndarray


def transport(diracs: Diracs, geodesic_at: Callable[[ArrayLike], Particles]):
    """Draw an exact geodesic.

    In one dimension densities over time, and positions over time; in more, particles at five times in the
    first two coordinates. Areas are masses, faint lines the pairs. The last panel is the mass over time: what
    travels, what dies in place and what is born there.

    Args:
      diracs: an optimal semi-coupling, as `static.semi_coupling` returns it.
      geodesic_at: ``t -> Particles``, one per Dirac, for instance `static.wfr_geodesic` of these ``diracs``.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    before, after = np.asarray(diracs.source_mass), np.asarray(diracs.target_mass)
    there = before + after > 1e-9 * max(before.sum(), after.sum())
    before, after = before[there], after[there]
    kinds = np.where(after == 0, "dies in place", np.where(before == 0, "is born in place", "travels"))

    def frame(time: float) -> _Frame:
        now = geodesic_at(time)
        return _Frame(np.asarray(now.position)[there], np.exp(np.asarray(now.log_weight))[there])

    grid = np.linspace(0, 1, _FINE)
    film = [frame(time) for time in grid]
    heaviest = np.argsort(-np.maximum(before, after))[:_LINES]
    if diracs.source.shape[1] == 1:
        figure = Figure(figsize=(15, 4.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _densities(left, frame)
        _positions_in_time(middle, grid, film, kinds, heaviest, frame)
        _mass(right, grid, film, kinds)
        return figure
    figure = Figure(figsize=(12.5, 8), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    _clouds(panels[:5], film, heaviest[kinds[heaviest] == "travels"], kinds, frame)
    _mass(panels[5], grid, film, kinds)
    return figure


def _densities(axis, frame: Callable[[float], _Frame]) -> None:
    frames = [(time, colour, frame(time)) for time, colour in times()]
    x = _grid(np.concatenate([now.position for _, _, now in frames]))
    for time, colour, now in frames:
        with np.errstate(divide="ignore"):
            measure = Particles(now.position, np.log(now.mass))  # pyright: ignore[reportArgumentType]
        axis.plot(x, now.mass.sum() * density(measure, x), color=colour, label=f"t = {time:.2f}")
    axis.set(title="density, integrating to the mass", xlabel="x", ylabel="density")
    axis.legend(frameon=False)


def _grid(position: np.ndarray) -> np.ndarray:
    low, high = float(position.min()), float(position.max())
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, 300)


def _positions_in_time(axis, grid, film: list[_Frame], kinds, lines, frame) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415  slow to import
    from matplotlib.colors import to_rgba_array  # noqa: PLC0415

    position = np.stack([now.position[lines, 0] for now in film], axis=1)
    mass = np.stack([now.mass[lines] for now in film], axis=1)
    points = np.stack([np.broadcast_to(grid, position.shape), position], axis=-1)
    segments = np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 2)
    colours = np.repeat(to_rgba_array([_KINDS[kind] for kind in kinds[lines]]), len(grid) - 1, axis=0)
    colours[:, 3] = _opacity(0.5 * (mass[:, :-1] + mass[:, 1:])).ravel()
    axis.add_collection(LineCollection(list(segments), colors=colours, linewidths=0.8))
    for time, _ in times():
        now = frame(time)
        column = np.column_stack([np.full(len(now.mass), time), now.position[:, 0]])
        _circles(axis, now._replace(position=column), kinds, _area(film))
    axis.set(title="positions, area by mass", xlabel="t", ylabel="x", xlim=(-0.06, 1.06))
    axis.margins(y=0.08)


def _clouds(panels, film: list[_Frame], pairs, kinds, frame) -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415  slow to import

    segments = np.stack([film[0].position[pairs, :2], film[-1].position[pairs, :2]], axis=1)
    heavier = np.maximum(film[0].mass[pairs], film[-1].mass[pairs])
    colours = np.column_stack([np.full((len(pairs), 3), 0.4), _opacity(heavier)])
    low, high = _frame_of(np.concatenate([film[0].position[:, :2], film[-1].position[:, :2]]))
    for axis, (time, _) in zip(panels, times(), strict=True):
        axis.add_collection(LineCollection(list(segments), colors=colours, linewidths=0.8))
        now = frame(time)
        _circles(axis, now._replace(position=now.position[:, :2]), kinds, _area(film))
        axis.set(title=f"t = {time:.2f}, mass {now.mass.sum():.4g}", xlabel="x₁", ylabel="x₂", aspect="equal")
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _frame_of(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners around all positions, at most a third longer than wide."""
    low, high = position.min(axis=0), position.max(axis=0)
    side = float((high - low).max()) or 1.0
    half = 0.5 * np.maximum(high - low, 0.75 * side) + 0.08 * side
    return 0.5 * (low + high) - half, 0.5 * (low + high) + half


def _opacity(mass: np.ndarray) -> np.ndarray:
    """Fainter for lighter lines, and the fainter the more lines there are."""
    if mass.size == 0:
        return mass
    return np.sqrt(mass / mass.max()) * np.clip(60 / len(mass), 0.25, 0.6)


def _circles(axis, now: _Frame, kinds: np.ndarray, area: float) -> None:
    """Particles as circles; those at one place are one circle of their common mass."""
    for kind, colour in _KINDS.items():
        chosen = (kinds == kind) & (now.mass > 0)
        if not chosen.any():
            continue
        place, which = np.unique(now.position[chosen], axis=0, return_inverse=True)
        mass = np.bincount(which.ravel(), weights=now.mass[chosen])
        axis.scatter(*place.T, s=area * mass, color=colour, alpha=0.55, linewidths=0, label=kind, zorder=2)


def _area(film: list[_Frame]) -> float:
    """Square points for a unit of mass, so that neither the heaviest nor all of them cover the picture."""
    total = max(now.mass.sum() for now in film)
    heaviest = max(now.mass.max() for now in (film[0], film[-1]))
    return min(_INK / total, _LARGEST_AREA / heaviest)


def _mass(axis, grid, film: list[_Frame], kinds) -> None:
    """The mass over time, stacked by what becomes of it."""
    parts = {kind: [now.mass[kinds == kind].sum() for now in film] for kind in _KINDS}
    parts = {kind: part for kind, part in parts.items() if max(part) > 0}
    axis.stackplot(
        grid, list(parts.values()), labels=list(parts), colors=[_KINDS[kind] for kind in parts], alpha=0.55
    )
    axis.set(title="mass", xlabel="t", ylabel="mass", xlim=(0, 1), ylim=(0, None))
    axis.legend(frameon=False, loc="lower center")
