"""Run the benchmarks one after the other, and write the results page.

``--smoke`` checks that each runs; without it sizes are those of a preset that takes about half an hour on two
cores; ``--full`` runs every experiment at its full size, for hours. Records go to ``--out`` as
``kind-name-CORES-DEVICE.jsonl``. ``--tables`` names a folder with cells/gene.csv, cells/dyngen.csv and uci/,
for the benchmarks on tables. ``--jobs`` runs some side by side, where times do not matter.

``--page`` runs nothing: it writes the results page, in benchmarks/README.md, from benchmarks/results.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import page

KINDS = ("speed", "peers", "accuracy")

PRESET = {
    "accuracy.aggregation": [],
    "accuracy.gaussian_mixture": ["--alphas", "1", "--seeds", "0"],
    "accuracy.ornstein_uhlenbeck": ["--dims", "2"],
    "accuracy.porous_medium": ["--dims", "1"],
    "accuracy.posterior": ["--seeds", "0", "--dims"],
    "accuracy.static_oracles": [],
    "accuracy.two_dimensional": ["--sets", "eight-gaussians", "--alphas", "10"],
    "accuracy.variational_ou": ["--dims", "2", "6"],
    "peers.static_wfr": [],
    "speed.icnn_jko": [],
    "speed.potential_jet": [],
    "speed.q_flow": [],
    "speed.static": [],
    "speed.training_step": [],
    "speed.variational_jko": [],
}
"""What half an hour has room for, by module."""

NAMED = {
    "accuracy-digits_bases": ["accuracy.digits", "--examples", "energies", "--bases", "copula", "flow"],
    "accuracy-digits_gaussian": ["accuracy.digits", "--examples", "energies", "--bases", "gaussian"],
    "accuracy-digits_transfer": ["accuracy.digits", "--examples", "transfer"],
    "accuracy-filtering_double_well": [
        *("accuracy.filtering", "--examples", "double-well", "--particles", "32768"),
    ],
    "accuracy-gaussian_mixture_action_weights": [
        *("accuracy.gaussian_mixture", "--alphas", "1", "--seeds", "0"),
        *("--action-weights", "0.01", "0.1", "1"),
    ],
    "accuracy-mixture_convergence_large": ["accuracy.mixture_convergence", "--large"],
    "accuracy-proximal_50": ["accuracy.proximal", "--dims", "50", "--samples", "2000"],
    "accuracy-proximal_cold": [
        *("accuracy.proximal", "--cold", "--dims", "7", "12", "--seeds", "0"),
        *("--samples", "1000", "--steps", "2000"),
    ],
    "accuracy-proximal_critics": [
        *("accuracy.proximal", "--dims", "7", "--seeds", "0", "--samples", "2000"),
        *("--critics", "penalty", "spectral", "orthogonal"),
    ],
    "accuracy-proximal_digits": ["accuracy.proximal", "--target", "digits", "--seeds", "0"],
    "accuracy-proximal_growth": ["accuracy.proximal_baselines", "--rows", "growth"],
    "accuracy-proximal_kinetic": [
        *("accuracy.proximal", "--dims", "2", "--seeds", "0", "--samples", "2000", "--kinetic-weight", "0.5"),
    ],
    "accuracy-proximal_moons": [
        *("accuracy.proximal", "--target", "moons", "--seeds", "0", "--dims", "2", "7", "12", "50"),
    ],
    "accuracy-proximal_without_w1": [
        *("accuracy.proximal", "--cold", "--dims", "7", "12", "--seeds", "0"),
        *("--samples", "1000", "--steps", "2000"),
        "--without-w1",
    ],
    "accuracy-refinement_gaussians": ["accuracy.refinement", "--examples", "gaussians", "--seeds", "0"],
    "accuracy-refinement_information": ["accuracy.refinement", "--examples", "information", "--seeds", "0"],
    "accuracy-refinement_moons": ["accuracy.refinement", "--examples", "moons", "--seeds", "0"],
    "accuracy-refinement_unbalanced": ["accuracy.refinement", "--examples", "unbalanced", "--seeds", "0"],
    "accuracy-snapshots_clusters": ["accuracy.snapshots", "--dims", "10", "100"],
    "accuracy-snapshots_clusters_components": ["accuracy.snapshots", "--dims", "100", "1000", "--components"],
    "accuracy-two_dimensional_ot_flow": ["accuracy.two_dimensional", "--ot-flow"],
    "accuracy-two_dimensional_toys": [
        *("accuracy.two_dimensional", "--sets"),
        *("circles", "checkerboard", "pinwheel", "swissroll", "two-spirals"),
    ],
}
"""What ``--full`` runs besides, by the name of the record."""

_GENE = (
    *("accuracy.snapshots", "--table", "cells/gene.csv"),
    *("--time", "samples", "--alpha", "2.25", "--hill-growth"),
)

TABLES = {
    "accuracy-snapshots_gene": _GENE,
    "accuracy-snapshots_gene_quick": (*_GENE, "--quick"),
    "accuracy-snapshots_dyngen": (
        "accuracy.snapshots",
        "--table",
        "cells/dyngen.csv",
        *("--time", "samples", "--alpha", "4"),
    ),
    "accuracy-logistic_regression": ("accuracy.logistic_regression", "--tables", "uci"),
}
"""What ``--tables`` adds; the third word is a place in that folder."""


def modules() -> list[str]:
    """``kind.name`` of every benchmark."""
    return [
        f"{kind}.{path.stem}"
        for kind in KINDS
        for path in sorted((page.HERE / kind).glob("*.py"))
        if path.stem != "__init__"
    ]


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """What to run, by the name of its record."""
    if options.smoke:
        chosen = {name: ["--smoke"] for name in modules()}
    elif options.full:
        chosen = {name: [] for name in modules()}
    else:
        chosen = PRESET
    runs = {name.replace(".", "-", 1): [name, *given] for name, given in chosen.items()}
    if options.full:
        runs |= NAMED
    if options.tables is not None and not options.smoke:
        for name, (module, option, place, *given) in TABLES.items():
            runs[name] = [module, option, str(options.tables / place), *given]
    if options.only:
        runs = {name: run for name, run in runs.items() if run[0] in options.only}
    return runs


def device(machine: dict[str, Any]) -> str:
    """The end of a record's name. Of the record: this process leaves the accelerator to the benchmarks."""
    if machine["backend"] == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{cores}core-cpu"
    return f"{machine['num_devices']}x-{re.sub('[ -]', '_', machine['device'])}"


def run(name: str, module: str, given: list[str], options: argparse.Namespace) -> bool:
    """Run a benchmark, and keep its record if there is a folder; whether it succeeded."""
    command, beside = [sys.executable, "-m", f"benchmarks.{module}", *given], options.jobs > 1
    heading = f"== {module} {' '.join(given)}\n"
    record = None if options.out is None else options.out / f"{name}.jsonl"
    if record is not None:
        command += ["--out", str(record)]
    if not beside:
        print(heading, end="", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False, capture_output=beside, text=True)
    if beside:
        sys.stdout.write(heading + done.stdout + done.stderr)
        sys.stdout.flush()
    if record is not None and record.exists():
        machine = json.loads(record.read_text().splitlines()[0])["machine"]
        record.replace(options.out / f"{name}-{device(machine)}.jsonl")
    return done.returncode == 0


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--smoke", action="store_true", help="tiny sizes, to see that all of them run")
    options.add_argument("--full", action="store_true", help="every experiment at its full size")
    options.add_argument("--only", nargs="+", choices=modules(), metavar="KIND.NAME", help="these alone")
    options.add_argument("--tables", type=Path, metavar="FOLDER", help="where the tables are")
    options.add_argument("--out", type=Path, metavar="FOLDER", help="keep the records there")
    options.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    options.add_argument("--page", action="store_true", help="write the results page, and run nothing")
    options = options.parse_args()
    if options.page:
        page.write()
        return 0
    runs = commands(options)
    with ThreadPoolExecutor(options.jobs) as pool:
        succeeded = pool.map(lambda item: run(item[0], item[1][0], item[1][1:], options), runs.items())
        failed = [run[0] for run, good in zip(runs.values(), succeeded, strict=True) if not good]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
