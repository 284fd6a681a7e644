"""``wfr-flows generate-from``: a proximal generative flow from a table, and samples of it."""

import argparse
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import measures, metrics, potentials, proximal, training
from wfr_flows.cli.files import (
    check_new_file,
    check_weights,
    read_end,
    told_in_one_sentence,
    write_points,
    writing,
)
from wfr_flows.cli.options import (
    InputError,
    add_resume,
    add_run,
    count,
    flow_steps,
    pick,
    positive,
    subcommand,
    width,
)
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.table import screen, show
from wfr_flows.cli.unfinished import keeping
from wfr_flows.cli.units import Units, units_of
from wfr_flows.dynamics import Geometry, carry, potential_field, time_grid
from wfr_flows.measures import Particles
from wfr_flows.proximal import Diagnostics
from wfr_flows.typing import Key

DESCRIPTION = """\
Learn to generate points like those of a table, which may lie on a manifold, and write samples: a W1+W2
proximal flow from N(0, I), started on optimal assignments. Weights of the table count; samples weigh the
same.

Writes CSV with the columns x1, x2, ..., NPZ with position, or NPY. The same seed gives the same samples.
"""

_WASSERSTEIN = Geometry(jnp.inf)
_HELD_OUT = 0.1
_MOST_COMPARED = 2000


class Data(NamedTuple):
    """The table in units of its spread: what is learned from, what is kept to compare with, and the units."""

    seen: Particles
    kept: Particles
    units: Units


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "generate-from",
        run,
        help="learn from a table to generate such points",
        description=DESCRIPTION,
        example="points.csv -n 5000 --out samples.csv",
    )
    add = parser.add_argument
    add("table", metavar="FILE", help="CSV, NPZ, NPY or Parquet file with at least 20 points")
    add("--weights", metavar="NAME", help="column or array of the weights (default: weight, if present)")
    add("-n", type=count, metavar="N", help="how many samples (default: as many as points)")
    add_run(parser, "samples.csv", ".csv, .npz or .npy")
    add_resume(parser)
    tuning = parser.add_argument_group("tuning")
    add = tuning.add_argument
    add("--width", type=width, default=64, help="width of both networks (64)")
    add("--start-steps", type=count, help="steps on optimal assignments (12000; quick 1000)")
    add("--steps", type=count, help="steps of proximal training (500; quick 100)")
    add("--batch", type=count, help="particles of either end in a step (1024; quick 256)")
    add("--num-steps", type=flow_steps, default=5, help="Euler steps of the flow (5)")
    add("--kinetic-weight", type=positive, default=0.02, help="lambda, at unit spread (0.02)")
    add("--lipschitz", type=positive, default=1.0, help="L, the largest slope of the critic (1)")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_new_file(options.out, "--out", (".csv", ".npz", ".npy"))
    clock, console = Clock(), screen(options)
    split_key, train_key, sample_key, look_key = jax.random.split(jax.random.key(options.seed), 4)
    data = _load(split_key, options)
    potential, critic = _networks(options, data.units.center.size)
    with keeping(options, [options.table], beside=True) as kept:
        with clock.stage("training"), Bars(console) as bars:
            state = kept.trained(lambda: jax.block_until_ready(_train(train_key, options, data, bars)))
        size = options.n or data.seen.log_weight.size + data.kept.log_weight.size
        noise = measures.standard_normal(data.units.center.size).sample(sample_key, size)
        with clock.stage("generation"):
            field = potential_field(potential, _WASSERSTEIN)
            move = jax.jit(partial(carry, field, _WASSERSTEIN, solver=proximal.EULER))
            position = move(state.average, noise, time_grid(options.num_steps)).position[-1]
        look = partial(proximal.diagnose, potential, _WASSERSTEIN, critic, **_shared(options))
        found = jax.jit(look)(state.average, state.inner, look_key, noise, data.kept)
        with writing(options.out, "--out"):
            write_points(options.out, data.units.back(position))
    summary = _summary(options, data, position, found, clock) | kept.summary()
    show(summary, _rows(summary), f"Samples like {options.table}", options)
    return kept.exit_code()


def _load(key: Key, options: argparse.Namespace) -> Data:
    """In units of its own; a tenth is kept to compare with."""
    check_weights(options.weights, [options.table])
    with told_in_one_sentence():
        points = read_end(options.table, options.weights).normalise()
    size = points.log_weight.size
    if size < 20:
        raise InputError(f"{options.table} has {size} points; give at least 20 to learn from.")
    units = units_of([points])
    points = units(points)
    if not np.any(np.ptp(np.asarray(points.position), axis=0) > 0):
        raise InputError(f"all points of {options.table} are the same; there is nothing to learn.")
    order = jax.random.permutation(key, size)
    num_kept = min(int(_HELD_OUT * size), _MOST_COMPARED)
    kept, seen = (
        jax.tree.map(lambda leaf, i=i: leaf[i], points) for i in (order[:num_kept], order[num_kept:])
    )
    if not min(kept.mass, seen.mass) > 0:
        raise InputError(f"hardly any point of {options.table} has weight; leave those without out.")
    return Data(seen.normalise(), kept.normalise(), units)


def _networks(options: argparse.Namespace, dim: int):
    potential = potentials.arrival(potentials.mlp(dim, width=options.width), dim)
    return potential, potentials.smooth_critic(dim, width=options.width)


def _shared(options: argparse.Namespace) -> dict:
    return {"kinetic_weight": options.kinetic_weight, "num_steps": options.num_steps}


def _train(key: Key, options: argparse.Namespace, data: Data, bars: Bars) -> training.MinimaxState:
    potential, critic = _networks(options, data.units.center.size)
    start_steps, steps = pick(options, "start_steps", 12000, 1000), pick(options, "steps", 500, 100)
    phases = {"start": start_steps, "proximal": steps, "straighten": start_steps // 2}
    for phase, num in phases.items():
        bars.add(phase, num)
    shared = _shared(options)
    return proximal.fit(
        key,
        potential_field(potential, _WASSERSTEIN),
        _WASSERSTEIN,
        critic,
        measures.standard_normal(data.units.center.size),
        measures.empirical(data.seen),
        start_steps=start_steps,
        steps=steps,
        straighten_steps=phases["straighten"],
        batch=pick(options, "batch", 1024, 256),
        num_steps=shared["num_steps"],
        kinetic_weight=shared["kinetic_weight"],
        lipschitz=options.lipschitz,
        on_start=lambda chunk: bars.show("start", chunk.step, loss=chunk.info[0]),
        on_straighten=lambda chunk: bars.show("straighten", chunk.step, loss=chunk.info[0]),
        on_chunk=lambda chunk: bars.show("proximal", chunk.step, divergence=chunk.info.outer_info.divergence),
    )


def _summary(options, data: Data, position, found: Diagnostics, clock: Clock) -> dict:
    distance = jax.jit(metrics.energy_distance)
    unit = data.units.spread
    return {
        "table": options.table,
        "out": str(options.out),
        "dimension": data.units.center.size,
        "points": data.seen.log_weight.size,
        "held_out": data.kept.log_weight.size,
        "num_generated": position.shape[0],
        "energy_distance": float(distance(measures.equally_weighted(position), data.kept)) * unit,
        "energy_distance_of_points": float(distance(data.seen, data.kept)) * unit,
        "action": float(found.action) * unit**2,
        "relative_residual": float(found.residual),
        "terminal_gap": float(found.terminal_gap),
        "straightness": 1 - float(found.bend),
        "critic_slope": float(jnp.maximum(found.slope_on_data, found.slope_between)),
        "seed": options.seed,
        "seconds": clock.seconds,
        "precision": str(position.dtype),
        "device": jax.devices()[0].device_kind,
    }


def _rows(summary: dict) -> list[tuple[str, str]]:
    return [
        ("samples", f"{summary['num_generated']} in dimension {summary['dimension']}"),
        ("energy distance to held-out points", f"{summary['energy_distance']:.3g}"),
        ("that of the points learned from", f"{summary['energy_distance_of_points']:.3g}"),
        ("straightness of paths", f"{summary['straightness']:.4f}"),
        ("largest slope of the critic", f"{summary['critic_slope']:.3f}"),
        ("seconds, compilation included", f"{sum(summary['seconds'].values()):.1f}"),
    ]
