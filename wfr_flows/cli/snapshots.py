"""``wfr-flows snapshots``: dynamics with growth through snapshots in time, from one table."""

import argparse
from functools import partial
from typing import Any

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
    width,
)
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.snapshots_task import Learned, Task, at_mass_1, at_the_points, carried, misfits
from wfr_flows.cli.table import complain, printed_as_json, screen
from wfr_flows.cli.times import inner_time, shown_time, time_units
from wfr_flows.cli.unfinished import keeping
from wfr_flows.cli.units import units_of
from wfr_flows.dynamics import Field, Geometry, Trajectory, free_field, potential_field, windowed
from wfr_flows.geodesics import Chain
from wfr_flows.measures import (
    Components,
    Particles,
    Snapshots,
    Times,
    by_time,
    equally_weighted,
    padded,
    principal_components,
    read_with_times,
    write_annotated,
)
from wfr_flows.typing import Array, Key, Params

DESCRIPTION = """\
Learn how points move and grow through snapshots in time, from a table with a column of times: certified
Wasserstein-Fisher-Rao plans between neighbouring snapshots, and one field of velocity and growth matched to
them without simulation, then refined by it. Masses are weights, or else numbers of points, relative to the
first snapshot. Times are numbers, dates (days since the first), labels with one number in them (day 0, day 2)
or ordered categories.

Writes summary.json, cells.npz (velocity, growth and mass at every point of the table), trajectories.npz (the
first snapshot carried through time), snapshots.png and the parameters in checkpoint/; for an AnnData table
also cells.h5ad, the table with what cells.npz holds. With --components, positions and velocities in these
files are along them, and center and basis, [d, k], stand beside them; velocities in cells.h5ad are not.
"""

RESULTS = ("summary.json", "cells.npz", "trajectories.npz", "snapshots.png", "checkpoint", "cells.h5ad")
# Share of the variance of all points that an automatic alpha has at least: below it, the error of a learned
# potential over alpha is growth out of nothing.
_LEAST_ALPHA = 0.01
# Relative gaps of the plans.
_GAP, _QUICK_GAP = 1e-4, 1e-3


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
        help="length scale, or auto: the mean of W2² between neighbouring snapshots at mass 1, at least a"
        " hundredth of the variance of all points (default auto)",
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
    add("--hold-out", metavar="TIME", help="leave this time out of training, and compare there")
    add_run(parser, "wfr-snapshots")
    add_resume(parser)
    tuning = parser.add_argument_group("tuning")
    tuning.add_argument("--matching-steps", type=count, help="steps on the plans (8000; quick 1000)")
    tuning.add_argument(
        "--refinement-steps",
        type=count_or_zero,
        help="steps by simulation, which bring back particles that stray (200; quick 0: none)",
    )
    tuning.add_argument("--width", type=width, default=32, help="width of the networks (32)")
    tuning.add_argument(
        "--num-particles", type=count, default=2900, help="of a snapshot for its plans, at most (2900)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_directory(options.out)
    snapshots, times = _load(options)
    refuse_to_replace(options.out, RESULTS, (options.table,), ours=made_by(options.out, "snapshots"))
    clock, console = Clock(), screen(options)
    learn_key, chain_key = jax.random.split(jax.random.key(options.seed))
    task = _task(options, snapshots, times)
    with keeping(options, [options.table]) as kept:
        with clock.stage("plans"), told_in_one_sentence():
            chain = geodesics.chain(
                chain_key,
                task.time_units.node.tolist(),
                task.seen.measure,
                task.geometry,
                num_particles=options.num_particles,
                tolerance=_QUICK_GAP if options.quick else _GAP,
            )
            jax.block_until_ready(chain)
        with clock.stage("training"):
            params = kept.trained(lambda: _learn(learn_key, options, task, chain, console))
            learned = Learned(_field(options, task), params, chain)
        with clock.stage("evaluation"):
            trajectory = carried(task, learned)
            summary = _summary(options, task, learned, trajectory) | kept.summary()
        with clock.stage("files"):
            _write(options, task, learned, trajectory, summary | {"seconds": clock.seconds})
    _report(options, summary | {"seconds": clock.seconds}, console)
    return kept.exit_code()


def _positive_or_auto(text: str) -> float | str:
    return text if text == "auto" else positive(text)


def _count_or_auto(text: str) -> int | str:
    return text if text == "auto" else count(text)


def _load(options: argparse.Namespace) -> tuple[Snapshots, Times]:
    with told_in_one_sentence():
        points, times = read_with_times(options.table, options.time, weight=options.weights)
        snapshots = by_time(points, times.value)
    if times.label:
        order = ", ".join(f"'{shown_time(t, times.label)}' at {t:.15g}" for t in snapshots.time)
        complain(f"times by {times.unit}: {order}.")
    return snapshots, times


def _task(options: argparse.Namespace, snapshots: Snapshots, times: Times) -> Task:
    """In units of all points together, and ``alpha`` too."""
    hold_out = None if options.hold_out is None else inner_time(options.hold_out, snapshots.time, times.label)
    seen = snapshots if hold_out is None else snapshots.without(hold_out)
    measures = snapshots.measure
    components = _components(options, jnp.concatenate([m.position for m in measures]))
    if components is not None:
        measures = [m._replace(position=components.scores(m.position)) for m in measures]
    units = units_of([equally_weighted(jnp.concatenate([m.position for m in measures]))])
    measures = [units(m) for m in measures]
    snapshots = snapshots._replace(measure=measures)
    alpha = _automatic_alpha(measures) if options.alpha == "auto" else options.alpha / units.spread**2
    return Task(
        snapshots=snapshots,
        geometry=Geometry(alpha, spherical=False),
        units=units,
        components=components,
        time_units=time_units(seen.time, joint=options.joint),
        label=times.label,
        hold_out=hold_out,
    )


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


def _roughly(first: Particles, last: Particles) -> static.StaticResult:
    return static.wasserstein(first, last, tolerance=1e-2)


def _automatic_alpha(measures: list[Particles]) -> float:
    """Mean of ``W₂²`` between neighbours at mass 1: a typical way is then well within reach."""
    largest = max(measure.log_weight.size for measure in measures)
    same = [padded(measure, largest) for measure in measures]
    pairs = zip(same, same[1:], strict=False)
    alpha = float(np.mean([2 * at_mass_1(_roughly, a, b) for a, b in pairs]))
    position = np.concatenate([np.asarray(measure.position, np.float64) for measure in measures])
    least = _LEAST_ALPHA * float(np.sum(np.var(position, axis=0)))
    if not least > 0:
        raise InputError("all points are the same, which leaves no length scale; give --alpha.")
    if alpha < least:
        complain("neighbouring snapshots hardly differ; alpha is set to a hundredth of the variance.")
    return max(alpha, least)


def _field(options: argparse.Namespace, task: Task) -> Field:
    one = (
        potential_field(potentials.mlp(task.dim, width=options.width), task.geometry)
        if options.field == "potential"
        else free_field(task.dim, width=options.width)
    )
    return one if options.joint else windowed(one, jnp.asarray(task.time_units.node))


def _learn(key: Key, options: argparse.Namespace, task: Task, chain: Chain, console: Console) -> Params:
    steps = {
        "matching": pick(options, "matching_steps", 8000, 1000),
        "refinement": pick(options, "refinement_steps", 200, 0),
    }
    with Bars(console) as bars:
        for phase in (phase for phase, num_steps in steps.items() if num_steps):
            bars.add(phase, steps[phase])
        return geodesics.fit_chain(
            key,
            _field(options, task),
            task.geometry,
            chain,
            task.seen.measure,
            matching_steps=steps["matching"],
            refinement_steps=steps["refinement"],
            on_chunk=lambda phase, chunk: bars.show(phase, chunk.step, loss=chunk.info[0]),
        )


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
        "labels": [task.label[t] for t in snapshots.time] if task.label else None,
        "points": [measure.log_weight.size for measure in snapshots.measure],
        "mass": [float(m) for m in jax.jit(lambda many: [one.mass for one in many])(snapshots.measure)],
        "hold_out": task.hold_out,
        **misfits(task, trajectory),
        "action": float(jnp.sum(actions)) * unit,
        "certified_lower": float(jnp.sum(chain.lower)) * unit,
        "certified_upper": float(jnp.sum(chain.upper)) * unit,
        "certified": bool(jnp.all(chain.converged)),
        "seed": options.seed,
        "device": jax.devices()[0].device_kind,
    }


def _write(options, task: Task, learned: Learned, trajectory: Trajectory, summary: dict[str, Any]) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    components = task.components
    along = {} if components is None else {name: np.asarray(x) for name, x in components._asdict().items()}
    back = task.units.back
    at_points = at_the_points(task, learned)
    snapshots = task.snapshots
    measures = [m._replace(position=back(m.position)) for m in snapshots.measure]
    moved = trajectory._replace(
        position=back(trajectory.position), time=task.time_units.times(trajectory.time)
    )
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
    label = dict(zip(summary["time"], summary["labels"] or (), strict=False))
    for index, (distance, error) in enumerate(misfits):
        held_out = " (held out)" if summary["time"][index] == summary["hold_out"] else ""
        shown = (f"{value:.4f}" if value != "" else "" for value in (distance, error))
        mass = f"{summary['mass'][index]:.4f}"
        table.add_row(
            f"{shown_time(summary['time'][index], label)}{held_out}",
            str(summary["points"][index]),
            mass,
            *shown,
        )
    console.print(table)
    bounds = f"[{summary['certified_lower']:.4f}, {summary['certified_upper']:.4f}]"
    console.print(f"action {summary['action']:.4f}, certified between the snapshots {bounds}", markup=False)
    names = ", ".join(name for name in RESULTS if (options.out / name).exists())
    console.print(f"Written to {options.out}: {names}", markup=False)
