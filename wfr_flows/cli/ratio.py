"""``wfr-flows ratio``: the logarithm of the density of one file over that of another, at given points."""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from wfr_flows import refinement
from wfr_flows.cli import transport
from wfr_flows.cli.files import check_new_file, read_end, told_in_one_sentence, write_points, writing
from wfr_flows.cli.options import InputError, add_out, count, pick, subcommand
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.table import screen, show
from wfr_flows.cli.unfinished import keeping
from wfr_flows.refinement import LogRatio
from wfr_flows.typing import Array, Key, Params

DESCRIPTION = """\
Estimate log b(x)/a(x), the densities of the normalised measures behind B and A, at the points of a file: by
classification along the optimal path between them, in steps that are easy each.

Writes the points and the ratio: CSV with the columns x1, x2, ... and log_ratio, or NPZ with position and
log_ratio. Prints the Kullback-Leibler divergences KL(B|A) and KL(A|B) that follow, means over the files.
"""

_INTERVALS = 8
_AT_ONCE = 4096
_NOISE = 0.5


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "ratio",
        run,
        help="the log-ratio of the densities behind two samples",
        description=DESCRIPTION,
        example="a.csv b.csv --at points.csv",
    )
    transport.add_ends(parser)
    add = parser.add_argument
    add("--at", metavar="POINTS", required=True, help="CSV, NPZ or NPY file of points")
    add_out(parser, "ratio.csv", ".csv or .npz")
    add("--ratio-steps", type=count, help="of classification (1500; quick 300)")
    transport.add_flow(parser)


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_new_file(options.out, "--out", (".csv", ".npz"))
    source, target = (measure.normalise() for measure in transport.load(options))
    with told_in_one_sentence():
        points = read_end(options.at, None)
    found, dim = points.position.shape[1], source.position.shape[1]
    if found != dim:
        raise InputError(
            f"{options.at} has {found} coordinates and A and B {dim}; give points of their space."
        )
    clock, console = Clock(), screen(options)
    flow_key, ratio_key = jax.random.split(jax.random.key(options.seed))
    task = transport.standardised(source, target, np.inf)
    with keeping(options, [options.source, options.target, options.at], beside=True) as kept:
        with clock.stage("flow"):
            params = kept.trained(lambda: transport.learn(flow_key, options, task, console))
            learned = transport.Learned(transport.flow_field(options, task), params)
        with clock.stage("ratio"):
            found = kept.trained(lambda: _learn(ratio_key, options, task, learned, console))
            log_ratio = _everywhere(*found, task)
        with clock.stage("evaluation"):
            at_points = log_ratio(task.units(points).position)
            summary = _summary(options, task, log_ratio, at_points) | kept.summary()
            summary |= {"seconds": clock.seconds}
            with writing(options.out, "--out"):
                write_points(options.out, np.asarray(points.position), log_ratio=at_points)
    rows = [
        ("points", str(summary["points"])),
        ("least and largest", f"{summary['least']:.4f}, {summary['largest']:.4f}"),
        ("KL(B|A), KL(A|B)", f"{summary['divergence_of_target']:.4f}, {summary['divergence_of_source']:.4f}"),
        ("seconds", f"{sum(clock.seconds.values()):.1f}"),
    ]
    show(summary, rows, f"log ratio of {options.target} over {options.source}", options)
    return kept.exit_code()


def _learn(key: Key, options, task: transport.Task, learned: transport.Learned, console: Console):
    """Function and parameters of the log-ratio, in the units of the task."""
    time = jnp.linspace(0.0, 1.0, _INTERVALS + 1)
    bridge = refinement.flow_bridge(
        learned.field, task.geometry, learned.params, task.source, task.target, time, batch=256, noise=_NOISE
    )
    num_steps = pick(options, "ratio_steps", 1500, 300)
    with Bars(console) as bars:
        bars.add("ratio", num_steps)
        return refinement.fit_ratio(
            key,
            transport.network(task.units.center.size, options.width),
            time,
            bridge,
            num_steps=num_steps,
            on_chunk=lambda chunk: bars.show("ratio", chunk.step, loss=chunk.info[0]),
        )


def _everywhere(log_ratio: LogRatio, params: Params, task: transport.Task) -> Callable[[Array], np.ndarray]:
    """``x: [n, d] -> log b/a``, in the units of the task."""
    evaluate = jax.jit(lambda x: jax.lax.map(lambda y: log_ratio(params, y), x, batch_size=_AT_ONCE))

    def at(position: Array) -> np.ndarray:
        return np.asarray(evaluate(jnp.asarray(position, task.source.position.dtype)))

    return at


def _summary(options, task: transport.Task, log_ratio, at_points: np.ndarray) -> dict[str, Any]:
    of_source, of_target = (
        float(np.asarray(m.weight) @ log_ratio(m.position)) for m in (task.source, task.target)
    )
    return {
        "command": "ratio",
        "source": options.source,
        "target": options.target,
        "at": options.at,
        "out": str(options.out),
        "points": at_points.size,
        "least": float(at_points.min()),
        "largest": float(at_points.max()),
        "mean": float(at_points.mean()),
        "divergence_of_target": of_target,
        "divergence_of_source": -of_source,
        "seed": options.seed,
        "device": jax.devices()[0].device_kind,
    }
