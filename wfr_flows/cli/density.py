"""``wfr-flows density``: the log-density of a learned measure at the points of a file."""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wfr_flows.cli import model
from wfr_flows.cli.files import check_new_file, read_end, told_in_one_sentence, write_points, writing
from wfr_flows.cli.options import InputError, add_out, add_printing, subcommand
from wfr_flows.cli.progress import Clock
from wfr_flows.cli.table import complain, show

DESCRIPTION = """\
Evaluate the density of what `wfr-flows posterior` learned, or `wfr-flows geodesic` without --target.

POINTS is a file as for the other commands; weights in it count in the mean that is printed, and nowhere
else. Writes the points and their natural log-density, normalised to integrate to 1: CSV with the columns
x1, x2, ... and log_density, or NPZ with position and log_density.
"""


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "density",
        run,
        help="log-density of a learned measure at the points of a file",
        description=DESCRIPTION,
        example="result points.csv --out density.csv",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="output directory of posterior or geodesic")
    add("points", metavar="POINTS", help="CSV, NPZ or NPY file")
    add_out(parser, "density.csv", ".csv or .npz")
    add_printing(parser)


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_new_file(options.out, "--out", (".csv", ".npz"))
    clock = Clock()
    with model.opened(options.checkpoint) as learned:
        with told_in_one_sentence():
            points = read_end(options.points, None)
        found = points.position.shape[1]
        if found != learned.dimension:
            raise InputError(
                f"{options.points} has {found} coordinates and the model in {options.checkpoint}"
                f" {learned.dimension}; give points of its space."
            )
        with clock.stage("evaluation"):
            log_density = np.asarray(model.log_density(learned, points.position))
        position, weight = np.asarray(points.position), np.asarray(points.normalise().weight)
        with writing(options.out, "--out"):
            write_points(options.out, position, log_density=log_density)
    summary = _summary(options, log_density, weight, clock)
    rows = [
        ("points", str(summary["points"])),
        ("mean log-density", _number(summary["mean_log_density"])),
        ("least and largest", f"{_number(summary['least'])}, {_number(summary['largest'])}"),
        ("seconds, compilation included", f"{summary['seconds']:.2f}"),
    ]
    show(summary, rows, f"Log-density of {options.checkpoint}", options)
    if summary["not_finite"]:
        complain(
            f"{summary['not_finite']} points lie too far out for {log_density.dtype}; what is"
            " written for them is not finite."
        )
    return 0


def _summary(
    options: argparse.Namespace, log_density: np.ndarray, weight: np.ndarray, clock: Clock
) -> dict[str, Any]:
    """Numbers over the points where the density is finite."""
    finite = np.isfinite(log_density)
    values, weight = log_density[finite].astype(np.float64), weight[finite].astype(np.float64)
    mean = float(weight @ values / weight.sum()) if weight.sum() > 0 else None
    return {
        "checkpoint": str(options.checkpoint),
        "out": str(options.out),
        "points": log_density.size,
        "not_finite": int((~finite).sum()),
        "mean_log_density": mean,
        "least": float(values.min()) if values.size else None,
        "largest": float(values.max()) if values.size else None,
        "seconds": clock.seconds["evaluation"],
        "precision": str(log_density.dtype),
        "device": jax.devices()[0].device_kind,
    }


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
