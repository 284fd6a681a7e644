"""``wfr-flows snapshots``: dynamics with growth through snapshots in time, from one table."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from wfr_flows import geodesics, potentials, static, training
from wfr_flows.cli.directory import check_directory, made_by, making, refuse_to_replace
from wfr_flows.cli.files import told_in_one_sentence, write_arrays, write_figure, write_json
from wfr_flows.cli.options import (
    InputError,
    add_resume,
    add_run,
    count,
    count_or_zero,
    pick,
    positive,
    subcommand,
)
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.table import printed_as_json, screen
from wfr_flows.cli.unfinished import keeping
from wfr_flows.cli.units import Units, units_of
from wfr_flows.dynamics import Field, Geometry, Trajectory, batched, free_field, potential_field, windowed
from wfr_flows.geodesics import Chain
from wfr_flows.measures import (
    Components,
    Particles,
    Snapshots,
    by_time,
    equally_weighted,
    padded,
    principal_components,
    read_with_column,
    write_annotated,
)
from wfr_flows.static import StaticResult
from wfr_flows.typing import Array, Key, Params, Scalar

DESCRIPTION = """\
Learn how points move and grow through snapshots in time, from a table with a column of times: certified
Wasserstein-Fisher-Rao plans between neighbouring snapshots, and one field of velocity and growth matched to
them without simulation, then refined by it. Masses are weights, or else numbers of points, relative to the
first snapshot.

Writes summary.json, cells.npz (velocity, growth and mass at every point of the table), trajectories.npz (the
first snapshot carried through time), snapshots.png and the parameters in checkpoint/; for an AnnData table
also cells.h5ad, the table with what cells.npz holds. With --components, positions and velocities in these
files are along them, and center and basis, [d, k], stand beside them; velocities in cells.h5ad are not.
"""

RESULTS = ("summary.json", "cells.npz", "trajectories.npz", "snapshots.png", "checkpoint", "cells.h5ad")
_STEPS_IN_A_WINDOW = 16
_ONE_SIDED = 1e-4
# Relative gaps of the plans.
_GAP, _QUICK_GAP = 1e-4, 1e-3


class Task(NamedTuple):
    """The snapshots, along components if any, in units of their spread, and what brings them back."""

    snapshots: Snapshots
    geometry: Geometry
    units: Units
    components: Components | None

    @property
    def dim(self) -> int:
        """Of what is learned."""
        return self.snapshots.measure[0].position.shape[1]


class Learned(NamedTuple):
    """A field and its parameters, for a `Task`."""

    field: Field
    params: Params
    chain: Chain


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "snapshots",
        run,
        help="motion and growth through snapshots in time",
        description=DESCRIPTION,
        example="cells.csv --time day --out result",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="CSV, NPZ, Parquet or AnnData (.h5ad) file")
    add("--time", metavar="COLUMN", required=True, help="column, array or observation that holds the times")
    add("--weights", metavar="NAME", help="that of the weights (default: weight, if present)")
    add(
        "--alpha",
        type=_positive_or_auto,
        default="auto",
        help="length scale, or auto: the mean of W2² between neighbouring snapshots at mass 1 (default auto)",
    )
    add("--field", choices=("potential", "free"), default="potential", help="one potential, or two networks")
    add("--joint", action="store_true", help="one field smooth in time, instead of one between snapshots")
    add(
        "--components",
        type=_count_or_auto,
        metavar="K",
        help="learn along K principal components, or auto: those that stand out of noise; the rest of a point"
        " stays with it (default: all coordinates)",
    )
    add("--hold-out", type=float, metavar="TIME", help="leave this time out of training, and compare there")
    add_run(parser, "wfr-snapshots")
    add_resume(parser)
    tuning = parser.add_argument_group("tuning")
    tuning.add_argument("--matching-steps", type=count, help="steps on the plans (8000; quick 1000)")
    tuning.add_argument(
        "--refinement-steps",
        type=count_or_zero,
        help="steps by simulation, which bring back particles that stray (200; quick 0: none)",
    )
    tuning.add_argument("--width", type=count, default=32, help="width of the networks (32)")
    tuning.add_argument(
        "--num-particles", type=count, default=2900, help="of a snapshot for its plans, at most (2900)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_directory(options.out)
    snapshots = _load(options)
    refuse_to_replace(options.out, RESULTS, (options.table,), ours=made_by(options.out, "snapshots"))
    clock, console = Clock(), screen(options)
    learn_key, chain_key = jax.random.split(jax.random.key(options.seed))
    task = _task(options, snapshots)
    seen = task.snapshots.without(options.hold_out) if options.hold_out is not None else task.snapshots
    with keeping(options, [options.table]):
        with clock.stage("plans"), told_in_one_sentence():
            chain = geodesics.chain(
                chain_key,
                *seen[:2],
                task.geometry,
                num_particles=options.num_particles,
                tolerance=_QUICK_GAP if options.quick else _GAP,
            )
            jax.block_until_ready(chain)
        with clock.stage("training"):
            learned = _learn(learn_key, options, task, seen, chain, console)
        with clock.stage("evaluation"):
            trajectory = _carried(task, learned)
            summary = _summary(options, task, learned, trajectory)
        with clock.stage("files"):
            _write(options, task, learned, trajectory, summary | {"seconds": clock.seconds})
    _report(options, summary | {"seconds": clock.seconds}, console)
    return 0


def _positive_or_auto(text: str) -> float | str:
    return text if text == "auto" else positive(text)


def _count_or_auto(text: str) -> int | str:
    return text if text == "auto" else count(text)


def _load(options: argparse.Namespace) -> Snapshots:
    with told_in_one_sentence():
        points, times = read_with_column(options.table, options.time, weight=options.weights)
        snapshots = by_time(points, times)
    if options.hold_out is None:
        return snapshots
    if options.hold_out not in snapshots.time[1:-1]:
        inner = ", ".join(f"{t:g}" for t in snapshots.time[1:-1]) or "none"
        raise InputError(f"--hold-out {options.hold_out:g} is no time between the ends; those are: {inner}.")
    return snapshots


def _task(options: argparse.Namespace, snapshots: Snapshots) -> Task:
    """In units of all points together, and ``alpha`` too."""
    measures = snapshots.measure
    components = _components(options, jnp.concatenate([m.position for m in measures]))
    if components is not None:
        measures = [m._replace(position=components.scores(m.position)) for m in measures]
    units = units_of([equally_weighted(jnp.concatenate([m.position for m in measures]))])
    measures = [units(m) for m in measures]
    snapshots = snapshots._replace(measure=measures)
    alpha = _automatic_alpha(measures) if options.alpha == "auto" else options.alpha / units.spread**2
    return Task(snapshots, Geometry(alpha, spherical=False), units, components)


def _components(options: argparse.Namespace, position: Array) -> Components | None:
    if options.components is None:
        return None
    dim = position.shape[1]
    if options.components != "auto" and options.components > dim:
        raise InputError(
            f"--components {options.components} exceeds the {dim} coordinates of {options.table}."
        )
    num = None if options.components == "auto" else options.components
    return principal_components(equally_weighted(position), num)


def _automatic_alpha(measures: list[Particles]) -> float:
    """Mean of ``W₂²`` between neighbours at mass 1: a typical way is then well within reach."""
    largest = max(measure.log_weight.size for measure in measures)
    same = [padded(measure, largest) for measure in measures]
    solve = jax.jit(_at_mass_1(partial(static.wfr, alpha=jnp.inf, tolerance=1e-2)))
    alpha = float(np.mean([2 * solve(a, b) for a, b in zip(same, same[1:], strict=False)]))
    if not alpha > 0:
        raise InputError("neighbouring snapshots coincide, which leaves no length scale; give --alpha.")
    return alpha


def _at_mass_1(distance: Callable[[Particles, Particles], StaticResult]) -> Callable[..., Scalar]:
    return lambda first, last: distance(first.normalise(), last.normalise()).value


def _learn(
    key: Key, options: argparse.Namespace, task: Task, seen: Snapshots, chain: Chain, console: Console
) -> Learned:
    dim = task.dim
    one = (
        potential_field(potentials.mlp(dim, width=options.width), task.geometry)
        if options.field == "potential"
        else free_field(dim, width=options.width)
    )
    field = one if options.joint else windowed(one, chain.time)
    steps = {
        "matching": pick(options, "matching_steps", 8000, 1000),
        "refinement": pick(options, "refinement_steps", 200, 0),
    }
    with Bars(console) as bars:
        for phase in (phase for phase, num_steps in steps.items() if num_steps):
            bars.add(phase, steps[phase])
        params = geodesics.fit_chain(
            key,
            field,
            task.geometry,
            chain,
            seen.measure,
            matching_steps=steps["matching"],
            refinement_steps=steps["refinement"],
            on_chunk=lambda phase, chunk: bars.show(phase, chunk.step, loss=chunk.info[0]),
        )
    return Learned(field, params, chain)


def _carried(task: Task, learned: Learned) -> Trajectory:
    """The first snapshot through all times, those held out among them."""
    times = jnp.asarray(task.snapshots.time, learned.chain.time.dtype)
    carry = jax.jit(partial(geodesics.push, learned.field, task.geometry, num_steps=_STEPS_IN_A_WINDOW))
    return carry(learned.params, task.snapshots.measure[0], times)


def _summary(
    options: argparse.Namespace, task: Task, learned: Learned, trajectory: Trajectory
) -> dict[str, Any]:
    unit = task.units.spread**2
    chain, snapshots = learned.chain, task.snapshots
    actions = jax.jit(
        partial(geodesics.window_actions, learned.field, task.geometry, num_windows=len(snapshots.time) - 1)
    )(learned.params, trajectory)
    return {
        "command": "snapshots",
        "table": options.table,
        "alpha": float(jnp.asarray(task.geometry.alpha)) * unit,
        "field": options.field,
        "joint": options.joint,
        "dimension": (task.components or task.units).center.size,
        "components": task.dim,
        "time": snapshots.time,
        "points": [measure.log_weight.size for measure in snapshots.measure],
        "mass": [float(m) for m in jax.jit(lambda many: [one.mass for one in many])(snapshots.measure)],
        "hold_out": options.hold_out,
        **_misfits(task, trajectory),
        "action": float(jnp.sum(actions)) * unit,
        "certified_lower": float(jnp.sum(chain.lower)) * unit,
        "certified_upper": float(jnp.sum(chain.upper)) * unit,
        "certified": bool(jnp.all(chain.converged)),
        "seed": options.seed,
        "device": jax.devices()[0].device_kind,
    }


def _misfits(task: Task, trajectory: Trajectory) -> dict[str, list[float]]:
    """At every time but the first: ``W₁`` at mass 1 between what was carried there and the snapshot, mass."""
    measures = task.snapshots.measure[1:]
    largest = max(measure.log_weight.size for measure in measures)
    solve = jax.jit(_at_mass_1(static.wasserstein_1))
    distances, errors = [], []
    for index, measure in enumerate(measures, start=1):
        there = trajectory.at(index * (_STEPS_IN_A_WINDOW + 1) - 1)
        distances.append(float(solve(there, padded(measure, largest))) * task.units.spread)
        errors.append(abs(float(there.mass) / float(measure.mass) - 1))
    return {"wasserstein_1": distances, "relative_mass_error": errors}


def _at_the_points(task: Task, learned: Learned) -> dict[str, np.ndarray]:
    """Velocity, growth and mass at every row of the table.

    Where two windows meet, the mean of both. Mass is what a point of mass 1 has become at the next snapshot.
    """
    snapshots, last = task.snapshots, task.snapshots.time[-1]
    rates_at, span = jax.jit(batched(learned.field)), last - snapshots.time[0]
    total = sum(len(row) for row in snapshots.row)
    velocity, growth, mass = (
        np.empty((total, task.dim)),
        np.empty(total),
        np.ones(total),
    )
    push = jax.jit(partial(geodesics.push, learned.field, task.geometry, num_steps=_STEPS_IN_A_WINDOW))
    largest = max(len(row) for row in snapshots.row)
    for index, (now, measure, row) in enumerate(zip(*snapshots, strict=True)):
        full = padded(measure._replace(log_weight=jnp.zeros_like(measure.log_weight)), largest)
        sides = (now - _ONE_SIDED * span, now + _ONE_SIDED * span)
        inside = [t for t in sides if snapshots.time[0] < t < last]
        both = [rates_at(learned.params, jnp.asarray(t, full.position.dtype), full.position) for t in inside]
        velocity[row] = np.mean([r.velocity for r in both], axis=0)[: len(row)] * task.units.spread
        growth[row] = np.mean([r.growth for r in both], axis=0)[: len(row)]
        if now < last:
            window = jnp.asarray(snapshots.time[index : index + 2], full.position.dtype)
            carried = push(learned.params, full._replace(log_weight=jnp.zeros(largest)), window)
            mass[row] = np.exp(carried.log_weight[-1])[: len(row)]
    return {"velocity": velocity, "growth": growth, "mass": mass}


def _write(options, task: Task, learned: Learned, trajectory: Trajectory, summary: dict[str, Any]) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    components = task.components
    along = {} if components is None else {name: np.asarray(x) for name, x in components._asdict().items()}
    back = task.units.back
    at_points = _at_the_points(task, learned)
    snapshots = task.snapshots
    measures = [m._replace(position=back(m.position)) for m in snapshots.measure]
    moved = trajectory._replace(position=back(trajectory.position))
    order = np.concatenate(snapshots.row)
    position = np.concatenate([m.position for m in measures])[np.argsort(order)]
    times = np.repeat(snapshots.time, [len(row) for row in snapshots.row])[np.argsort(order)]
    with making(options.out):
        # A step of its own: orbax passes over one that is there already.
        before = training.latest_step(options.out / "checkpoint") or 0
        training.save(options.out / "checkpoint", before + 1, learned.params)
        write_arrays(options.out / "cells.npz", {"position": position, "time": times, **at_points, **along})
        write_arrays(
            options.out / "trajectories.npz",
            {name: np.asarray(getattr(moved, name)) for name in ("time", "position", "log_weight")} | along,
        )
        figure = plotting.snapshots(
            snapshots._replace(measure=measures), moved, position, at_points["growth"]
        )
        write_figure(options.out / "snapshots.png", figure)
        if options.table.endswith(".h5ad"):
            obs = {"wfr_growth": at_points["growth"], "wfr_mass": at_points["mass"]}
            velocity = at_points["velocity"]
            cells = {"wfr_velocity": velocity @ along["basis"].T if along else velocity}
            write_annotated(options.table, options.out / "cells.h5ad", obs, cells)
        write_json(options.out / "summary.json", summary)


def _report(options: argparse.Namespace, summary: dict[str, Any], console: Console) -> None:
    if printed_as_json(summary, options):
        return
    table = Table(title=f"Snapshots, alpha = {summary['alpha']:.4g}")
    for name in ("time", "points", "mass", "W₁", "relative mass error"):
        table.add_column(name, justify="right")
    misfits = zip(["", *summary["wasserstein_1"]], ["", *summary["relative_mass_error"]], strict=True)
    for index, (distance, error) in enumerate(misfits):
        held_out = " (held out)" if summary["time"][index] == summary["hold_out"] else ""
        shown = (f"{value:.4f}" if value != "" else "" for value in (distance, error))
        mass = f"{summary['mass'][index]:.4f}"
        table.add_row(f"{summary['time'][index]:g}{held_out}", str(summary["points"][index]), mass, *shown)
    console.print(table)
    bounds = f"[{summary['certified_lower']:.4f}, {summary['certified_upper']:.4f}]"
    console.print(f"action {summary['action']:.4f}, certified between the snapshots {bounds}", markup=False)
    names = ", ".join(name for name in RESULTS if (options.out / name).exists())
    console.print(f"Written to {options.out}: {names}", markup=False)
