"""``wfr-flows transport``: the map of optimal transport between two files, learned, and what it costs."""

import argparse
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from wfr_flows import metrics, potentials, refinement, static, training
from wfr_flows.cli.directory import check_directory, made_by, making, refuse_to_replace
from wfr_flows.cli.files import (
    check_dimensions,
    check_mass,
    check_weights,
    read_end,
    told_in_one_sentence,
    write_arrays,
    write_json,
)
from wfr_flows.cli.options import (
    InputError,
    add_out,
    add_printing,
    add_quick,
    add_resume,
    add_seed,
    count,
    pick,
    positive_or_inf,
    subcommand,
    width,
)
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.table import screen, show
from wfr_flows.cli.unfinished import keeping
from wfr_flows.cli.units import Units, units_of
from wfr_flows.dynamics import Field, Geometry, Trajectory, potential_field
from wfr_flows.measures import Particles, thinned
from wfr_flows.potentials import Potential
from wfr_flows.static import Diracs
from wfr_flows.typing import Key, Params

DESCRIPTION = """\
Learn the map of optimal transport from A to B: one invertible flow, both ways. It starts from independent or
optimal pairs, is matched to the pairs that it makes itself, and corrected where classifiers tell its ends
from the data. With a finite --alpha points grow on their way, and masses count.

Writes summary.json, map.npz (A and where it goes, B and where it comes from, with weights) and the parameters
in checkpoint/. The cost of the path is on the scale of W2² (of 2d² at finite alpha); beside it stands the
certified optimum between at most 2000 points of either.
"""

RESULTS = ("summary.json", "map.npz", "checkpoint")
_CERTIFIED_POINTS = 2000
_EQUAL_MASSES = 1e-4


class Task(NamedTuple):
    """Both ends in units of their spread, and what brings them back."""

    source: Particles
    target: Particles
    geometry: Geometry
    units: Units


class Learned(NamedTuple):
    """A field and its parameters, for a `Task`."""

    field: Field
    params: Params


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "transport",
        run,
        help="a learned map of optimal transport between two samples",
        description=DESCRIPTION,
        example="a.csv b.csv --out result",
    )
    add_ends(parser)
    add = parser.add_argument
    add("--alpha", type=positive_or_inf, default=math.inf, help="length scale (default inf: nothing grows)")
    add_out(parser, "wfr-transport")
    add_flow(parser)


def add_ends(parser) -> None:
    """Add what both commands on two files share."""
    add = parser.add_argument
    add("source", metavar="A", help="CSV, NPZ or NPY file")
    add("target", metavar="B", help="CSV, NPZ or NPY file")
    add("--weights", metavar="NAME", help="weight column or array of the files (default: weight, if present)")
    add_seed(parser)
    add_quick(parser)
    add_resume(parser)
    add_printing(parser)


def add_flow(parser) -> None:
    """Add the options that tune the flow."""
    tuning = parser.add_argument_group("tuning")
    add = tuning.add_argument
    add("--pairs", choices=("independent", "optimal"), default="independent", help="to begin with")
    add("--width", type=width, default=64, help="width of the networks (64)")
    add("--matching-steps", type=count, help="of each of three rounds of matching (2000; quick 300)")
    add("--refinement-steps", type=count, help="of Q-flow (300; quick 30)")
    add("--batch", type=count, default=1024, help="points of either end in a step of Q-flow (1024)")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_directory(options.out)
    source, target = load(options)
    _check_masses(options, source, target)
    ours = made_by(options.out, "transport")
    refuse_to_replace(options.out, RESULTS, (options.source, options.target), ours=ours)
    clock, console = Clock(), screen(options)
    learn_key, judge_key = jax.random.split(jax.random.key(options.seed))
    task = standardised(source, target, options.alpha)
    with keeping(options, [options.source, options.target]) as kept:
        with clock.stage("training"):
            params = kept.trained(lambda: learn(learn_key, options, task, console))
            learned = Learned(flow_field(options, task), params)
        with clock.stage("evaluation"):
            there, back, inverse_error = both_ways(task, learned)
            summary = _summary(judge_key, options, task, there, back) | {"inverse_error": inverse_error}
        summary |= {"seconds": clock.seconds} | kept.summary()
        with making(options.out):
            _write(options, task, learned, there, back, summary)
    show(summary, _rows(summary), f"Transport from {options.source} to {options.target}", options)
    return kept.exit_code()


def load(options: argparse.Namespace) -> tuple[Particles, Particles]:
    """Both files, of one dimension."""
    check_weights(options.weights, [options.source, options.target])
    with told_in_one_sentence():
        source, target = (read_end(name, options.weights) for name in (options.source, options.target))
    check_dimensions(source.position.shape[1], target.position.shape[1])
    for name, measure in ((options.source, source), (options.target, target)):
        if measure.position.shape[0] < 2:
            raise InputError(f"{name} has one point; give at least two.")
    return source, target


def standardised(source: Particles, target: Particles, alpha: float) -> Task:
    """Both ends in units of their own, and ``alpha`` too."""
    units = units_of([source, target])
    if math.isinf(alpha):
        source, target = source.normalise(), target.normalise()
    geometry = Geometry(alpha / units.spread**2, spherical=False)
    return Task(units(source), units(target), geometry, units)


def flow_field(options: argparse.Namespace, task: Task) -> Field:
    """The field that `learn` finds the parameters of."""
    return potential_field(network(task.units.center.size, options.width), task.geometry)


def learn(key: Key, options: argparse.Namespace, task: Task, console: Console) -> Params:
    """Parameters of the flow between the ends of a task."""
    matching_steps = pick(options, "matching_steps", 2000, 300)
    refinement_steps = pick(options, "refinement_steps", 300, 30)
    pair_key, key = jax.random.split(key)
    with Bars(console) as bars:
        bars.add("matching", matching_steps)
        bars.add("refinement", refinement_steps)

        def tell(phase: str, chunk: training.Chunk) -> None:
            loss = chunk.info[0] if phase == "matching" else jnp.sum(chunk.info.divergence, axis=1)
            bars.show(phase, chunk.step, loss=loss)

        return refinement.refine(
            key,
            flow_field(options, task),
            task.geometry,
            network(task.units.center.size, options.width),
            refinement.between(task.source, task.target),
            pairs=_optimal_pairs(pair_key, task) if options.pairs == "optimal" else None,
            matching_steps=matching_steps,
            refinement_steps=refinement_steps,
            batch=options.batch,
            on_chunk=tell,
        )


def network(dim: int, width: int) -> Potential:
    """A network beside what is quadratic, which it need not learn."""
    return potentials.total(potentials.moving_quadratic(dim, degree=3), potentials.mlp(dim, width=width))


def both_ways(task: Task, learned: Learned) -> tuple[Trajectory, Trajectory, float]:
    """All of A forward, all of B back, and how far either is from where it comes back to, in data units."""
    take = partial(refinement.round_trip, learned.field, task.geometry, learned.params)
    there, error = take(task.source)
    back, other = take(task.target, reverse=True)
    return there, back, max(float(jnp.max(error)), float(jnp.max(other))) * task.units.spread


def _check_masses(options: argparse.Namespace, source: Particles, target: Particles) -> None:
    check_mass(options.source, source)
    check_mass(options.target, target)
    masses = float(source.mass), float(target.mass)
    if math.isinf(options.alpha) and not np.isclose(*masses, rtol=_EQUAL_MASSES):
        raise InputError(
            f"--alpha inf keeps mass, and A has {masses[0]:.6g} and B {masses[1]:.6g}; normalise them, or"
            " give a finite --alpha."
        )


def _certificate(key: Key, task: Task) -> tuple[static.StaticResult, Particles, Particles]:
    ends = zip(jax.random.split(key), (task.source, task.target), strict=True)
    first, last = (thinned(k, measure, _CERTIFIED_POINTS) for k, measure in ends)
    solve = jax.jit(partial(static.wfr, alpha=task.geometry.alpha, tolerance=1e-3))
    return solve(first, last), first, last


def _optimal_pairs(key: Key, task: Task) -> Diracs:
    result, first, last = _certificate(key, task)
    return jax.jit(static.semi_coupling)(result, first, last, task.geometry.alpha)


def _summary(
    key: Key, options: argparse.Namespace, task: Task, there: Trajectory, back: Trajectory
) -> dict[str, Any]:
    unit = task.units.spread**2
    result, *_ = _certificate(key, task)
    cost = jax.jit(refinement.transport_cost)
    distance = jax.jit(lambda a, b: metrics.energy_distance(a, b, unbiased=True))
    ends = ((there.at(-1), task.target), (back.at(-1), task.source))
    return {
        "command": "transport",
        "source": options.source,
        "target": options.target,
        "alpha": options.alpha if math.isfinite(options.alpha) else "inf",
        "dimension": task.units.center.size,
        "source_points": task.source.log_weight.size,
        "target_points": task.target.log_weight.size,
        "cost": float(cost(there, task.geometry)) * unit,
        "cost_back": float(cost(back, task.geometry)) * unit,
        "certified_lower": 2 * float(result.lower_bound) * unit,
        "certified_upper": 2 * float(result.value) * unit,
        "energy_distance": [float(distance(*pair)) * task.units.spread for pair in ends],
        "mass": [float(there.at(-1).mass), float(task.target.mass)],
        "pairs": options.pairs,
        "seed": options.seed,
        "device": jax.devices()[0].device_kind,
    }


def _write(options, task: Task, learned: Learned, there, back, summary: dict[str, Any]) -> None:
    def out(measure: Particles) -> np.ndarray:
        return task.units.back(measure.position)

    before = training.latest_step(options.out / "checkpoint") or 0
    training.save(options.out / "checkpoint", before + 1, learned.params)
    arrays = {
        "source": out(there.at(0)),
        "source_weight": np.asarray(there.at(0).weight),
        "source_mapped": out(there.at(-1)),
        "source_mapped_weight": np.asarray(there.at(-1).weight),
        "target": out(back.at(0)),
        "target_weight": np.asarray(back.at(0).weight),
        "target_mapped": out(back.at(-1)),
        "target_mapped_weight": np.asarray(back.at(-1).weight),
    }
    write_arrays(options.out / "map.npz", arrays)
    write_json(options.out / "summary.json", summary)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    lower, upper = summary["certified_lower"], summary["certified_upper"]
    near, far = summary["energy_distance"]
    return [
        ("cost from A to B", f"{summary['cost']:.5g}"),
        ("cost from B to A", f"{summary['cost_back']:.5g}"),
        ("certified, of at most 2000 points", f"[{lower:.5g}, {upper:.5g}]"),
        ("energy distance at B, at A (unbiased)", f"{near:.2g}, {far:.2g}"),
        ("there and back, largest error", f"{summary['inverse_error']:.1e}"),
        ("seconds", f"{sum(summary['seconds'].values()):.1f}"),
    ]
