"""``wfr-flows generate``: weighted samples of a learned measure."""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.cli import model
from wfr_flows.cli.files import check_new_file, write_points, writing
from wfr_flows.cli.options import InputError, add_out, add_printing, add_seed, count, subcommand
from wfr_flows.cli.progress import Clock
from wfr_flows.cli.table import show
from wfr_flows.measures import Particles, resample

DESCRIPTION = """\
Draw weighted samples of what `wfr-flows posterior` learned, or `wfr-flows geodesic` without --target.

Writes CSV with the columns x1, x2, ... and weight, NPZ with position and log_weight, or with --resample
equally weighted samples and nothing but their coordinates. The same seed gives the same samples.
"""


# Coordinates and weights of a gigabyte in single precision.
_MOST_NUMBERS = 2**28


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "generate",
        run,
        help="weighted samples of a learned measure",
        description=DESCRIPTION,
        example="result -n 10000 --out samples.csv",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="output directory of posterior or geodesic")
    add("-n", type=count, metavar="N", required=True, help="how many samples")
    add_seed(parser)
    add("--resample", action="store_true", help="equal weights, by drawing samples again by their weights")
    add_out(parser, "samples.csv", ".csv, .npz or, with --resample, .npy")
    add_printing(parser)


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_new_file(options.out, "--out", (".csv", ".npz", ".npy"))
    if options.out.suffix.lower() == ".npy" and not options.resample:
        raise InputError(f"--out {options.out} has no place for weights; add --resample, or give CSV or NPZ.")
    clock = Clock()
    with model.opened(options.checkpoint) as learned:
        most = _MOST_NUMBERS // (learned.dimension + 1)
        if options.n > most:
            raise InputError(
                f"-n {options.n} is more than the {most} samples that fit into one file here; draw them in"
                " parts with other --seed."
            )
        with clock.stage("generation"):
            samples, size = jax.block_until_ready(_generate(learned, options))
        if not jnp.isfinite(size) or not jnp.isfinite(samples.position).all():
            raise InputError(
                f"the model in {options.checkpoint} makes samples that are not finite; train again."
            )
        with writing(options.out, "--out"):
            _write(options.out, samples, options.resample)
        summary = {
            "checkpoint": str(options.checkpoint),
            "out": str(options.out),
            "num_generated": options.n,
            "effective_sample_size": float(size),
            "resampled": options.resample,
            "dimension": learned.dimension,
            "seed": options.seed,
            "seconds": clock.seconds["generation"],
            "precision": str(samples.position.dtype),
            "device": jax.devices()[0].device_kind,
        }
    rows = [
        ("samples", f"{options.n} in {learned.dimension} dimension{'s' if learned.dimension > 1 else ''}"),
        ("effective sample size", f"{summary['effective_sample_size']:.0f} of {options.n}"),
        ("weights", "equal, resampled" if options.resample else "of sum 1"),
        ("seconds, compilation included", f"{summary['seconds']:.2f}"),
    ]
    show(summary, rows, f"Samples of {options.checkpoint}", options)
    return 0


def _generate(learned: model.Model, options: argparse.Namespace) -> tuple[Particles, jax.Array]:
    """Samples, and their effective sample size before resampling."""
    sample_key, resample_key = jax.random.split(jax.random.key(options.seed))
    samples = model.sample(learned, sample_key, options.n)
    size = samples.effective_sample_size
    if options.resample:
        samples = jax.jit(resample, static_argnums=2)(resample_key, samples, options.n)
    return samples, size


def _write(path: Path, samples: Particles, resampled: bool) -> None:
    position, log_weight = np.asarray(samples.position), np.asarray(samples.log_weight)
    if resampled:
        write_points(path, position)
    elif path.suffix.lower() == ".npz":
        write_points(path, position, log_weight=log_weight)
    else:
        write_points(path, position, weight=np.exp(log_weight.astype(np.float64)))
