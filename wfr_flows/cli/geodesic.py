"""``wfr-flows geodesic``: the options, the five stages of the job, and its table."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wfr_flows.cli import pipeline
from wfr_flows.cli.directory import check_directory, read_json, refuse_to_replace
from wfr_flows.cli.options import (
    add_resume,
    add_run,
    add_training,
    count,
    positive_or_inf,
    subcommand,
)
from wfr_flows.cli.progress import Clock
from wfr_flows.cli.settings import Settings, made_by_us
from wfr_flows.cli.table import printed_as_json, screen
from wfr_flows.cli.unfinished import keeping

DESCRIPTION = """\
Learn the spherical Wasserstein-Fisher-Rao geodesic from weighted samples to N(0, I) (or to a second file),
certified against the exact distance, and generate weighted samples by the reverse flow.

Writes summary.json, geodesic.png, particles.npz and the model, settings.json and checkpoint/, into the output
directory, where `wfr-flows generate` and `wfr-flows density` find it.
"""


RESULTS = ("summary.json", "geodesic.png", "particles.npz", "checkpoint")
"""What a run writes beside its settings.json."""

# In a full and in a quick run.
_USUAL = {
    "num_samples": (2000, 500),
    "matching_steps": (6000, 800),
    "refinement_steps": (200, 20),
    "batch": (1024, 512),
}


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "geodesic",
        run,
        help="learn a spherical WFR geodesic from weighted samples",
        description=DESCRIPTION,
        example="--source samples.csv --alpha 2 --out result",
    )
    add = parser.add_argument
    add(
        "--source",
        default="mixture",
        help="CSV, NPZ or NPY file, or: mixture (default), eight-gaussians, moons, circles, checkerboard,"
        " pinwheel, swissroll, two-spirals",
    )
    add("--target", help="CSV, NPZ or NPY file; default N(0, I)")
    add("--weights", metavar="NAME", help="weight column or array of the files (default: weight, if present)")
    add(
        "--alpha",
        type=positive_or_inf,
        default=1.0,
        help="length scale; inf is optimal transport (default 1)",
    )
    add_run(parser, "wfr-geodesic")
    add_resume(parser)
    tuning = parser.add_argument_group("tuning")
    tuning.add_argument(
        "--num-samples", type=count, help="samples of each end for the exact distance (2000; quick 500)"
    )
    add_training(
        tuning,
        matching_steps="6000; quick 800",
        refinement_steps="200; quick 20",
        batch="1024; quick 512",
        matching_weight=10.0,
    )


def run(options: argparse.Namespace) -> int:
    """Run the job; see the module and `DESCRIPTION`."""
    console = screen(options)
    problem = pipeline.load(options)
    settings = Settings.of(options, _USUAL)
    check_directory(options.out)
    ours = made_by_us(read_json(options.out / "settings.json"))
    files = [name for name in (options.source, options.target) if name]
    refuse_to_replace(options.out, (*RESULTS, "settings.json", "model.json"), files, ours=ours)
    with keeping(options, files) as kept:
        summary = pipeline.solve(problem, settings, options.out, Clock(), console, kept)
    if not printed_as_json(summary, options):
        _report(console, summary, options.out)
    return kept.exit_code()


def _report(console: Console, summary: dict, out: Path) -> None:
    def show(value: float | None, digits: int = 4) -> str:
        return "not computed" if value is None else f"{value:.{digits}f}"

    if summary["kl"] is not None:
        kl = f"{show(summary['kl'])} ± {show(summary['kl_standard_error'])}"
    else:
        unknown = [end for end in ("source", "target") if not summary[f"{end}_density_known"]]
        kl = f"not computed (no {unknown[-1]} density)" if unknown else "not finite"
    bounds = f"[{show(summary['exact_lower'])}, {show(summary['exact_upper'])}]"
    size = f"{show(summary['effective_sample_size'], 0)} of {summary['num_generated']}"
    rows = [
        (
            "exact d²_SWFR between samples",
            bounds + ("" if summary["exact_converged"] else " (not converged)"),
        ),
        ("learned action", show(summary["action"])),
        ("KL(source | generated)", kl),
        ("cross-entropy", show(summary["cross_entropy"])),
        ("d²_SWFR(pushed source, target)", show(summary["endpoint_distance"])),
        ("effective sample size", size),
        ("relative variation of w·v", show(summary["momentum_variation"])),
        ("relative error of d(mean Φ)/dt = -d²", show(summary["potential_slope_error"])),
        ("straightness of paths", show(summary["straightness"])),
        *((f"seconds, {name}", show(value, 1)) for name, value in summary["seconds"].items()),
    ]
    table = Table(title=f"Spherical WFR geodesic, alpha = {summary['alpha']}", show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    written = "summary.json, geodesic.png, particles.npz, settings.json, checkpoint/"
    console.print(f"Written to {out}: {written}", markup=False)
