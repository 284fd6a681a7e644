"""The main job against the truth: learned action and KL on the 1-D mixture, over seeds and alphas.

Runs ``wfr-flows geodesic`` in this process and compares the action it learns with intervals that hold the
exact d²_SWFR between the densities on a grid of 2000 points (`static_oracles`). The KL divergence of the
learned density, from ``wfr-flows density``, is by quadrature. Progress and tables go to standard error, JSON
lines to standard output.
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Emit, parser, report, rounded
from wfr_flows import measures
from wfr_flows.cli import main as command

REFERENCE = {
    0.25: (0.52510, 0.52514),
    0.5: (0.89541, 0.89549),
    1.0: (1.37584, 1.37592),
    2.0: (1.85687, 1.85696),
    5.0: (2.30811, 2.30819),
    10.0: (2.49632, 2.49640),
    100.0: (2.68475, 2.68486),
    float("inf"): (2.7069, 2.7070),
}
"""Intervals that hold the exact d²_SWFR, by alpha."""

GRID = np.linspace(-12.0, 12.0, 6001)

SMOKE = ["--num-samples=100", "--matching-steps=20", "--refinement-steps=2", "--batch=64", "--num-steps=2"]


def solve(alpha: float, seed: int, extra: list[str]) -> dict:
    """One run of the command: what it writes to summary.json, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        code = command(["geodesic", "--alpha", str(alpha), "--seed", str(seed), "--out", folder, *extra])
        seconds = time.perf_counter() - start
        if code:
            raise SystemExit(f"wfr-flows ended with exit code {code} at alpha {alpha}, seed {seed}")
        summary = json.loads((Path(folder) / "summary.json").read_text())
        return {**summary, "wall_seconds": seconds, "kl": kl_on_grid(Path(folder))}


def kl_on_grid(folder: Path) -> float:
    """``KL(source | learned)`` of what a run left in a folder, both normalised on the grid."""
    points, found = folder / "grid.npy", folder / "density.npz"
    np.save(points, GRID[:, None])
    code = command(["density", str(folder), str(points), "--out", str(found), "--quiet"])
    if code:
        raise SystemExit(f"wfr-flows density ended with exit code {code}")
    truth = jax.vmap(measures.BUILTIN["mixture"]().log_density)(jnp.asarray(GRID)[:, None])
    truth, learned = (np.asarray(x, float) for x in (truth, np.load(found)["log_density"]))
    truth, learned = (x - np.logaddexp.reduce(x) for x in (truth, learned))
    return float(np.sum(np.exp(truth) * (truth - learned)))


def against_truth(alpha: float, summary: dict) -> dict:
    """Errors of a run: the relative error is signed and against the middle of the reference interval."""
    low, high = REFERENCE.get(alpha, (None, None))
    middle = None if low is None else 0.5 * (low + high)
    return {
        "action": summary["action"],
        "reference": [low, high],
        "relative_error": None if middle is None else summary["action"] / middle - 1,
        "kl": summary["kl"],
        "sample_lower": summary["exact_lower"],
        "sample_upper": summary["exact_upper"],
        "effective_sample_size": summary["effective_sample_size"],
        "momentum_variation": summary["momentum_variation"],
        "potential_slope_error": summary["potential_slope_error"],
        "wall_seconds": summary["wall_seconds"],
    }


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--alphas", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0, 10.0, 100.0], help="inf is allowed"
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--quick", action="store_true", help="pass --quick on to the command")
    options.add_argument(
        "--action-weights",
        type=float,
        nargs="+",
        help="gamma1 of the published objective instead: 2048 samples, refinement without matching",
    )
    return options.parse_args()


def against_action_weight(options: argparse.Namespace, emit: Emit, extra: list[str]) -> None:
    """[WFR] figure 5: the action that the published objective comes to, by gamma1."""
    for alpha, seed, weight in itertools.product(options.alphas, options.seeds, options.action_weights):
        published = [
            "--num-samples=2048",
            "--batch=2048",
            "--matching-weight=0",
            f"--action-weight={weight}",
        ]
        run = against_truth(alpha, solve(alpha, seed, [*published, *extra]))
        emit(alpha=alpha, seed=seed, action_weight=weight, **rounded(run, 5))


def over_seeds(options: argparse.Namespace, emit: Emit, extra: list[str]) -> None:
    """Every alpha and seed, then the worst of every alpha."""
    for alpha in options.alphas:
        name = "inf" if alpha == float("inf") else alpha
        runs = []
        for seed in options.seeds:
            summary = solve(alpha, seed, extra)
            runs.append(against_truth(alpha, summary))
            emit(alpha=name, seed=seed, **rounded(runs[-1], 5), seconds=summary["seconds"])
        errors = [abs(run["relative_error"]) for run in runs if run["relative_error"] is not None]
        worst = {"worst_relative_error": max(errors, default=None)} | {
            f"worst_{name}": max(run[name] for run in runs)
            for name in ("kl", "momentum_variation", "potential_slope_error", "wall_seconds")
        }
        emit(alpha=name, seeds=options.seeds, **rounded(worst, 5))


def main() -> None:
    options = arguments()
    if options.smoke:
        options.alphas, options.seeds = [1.0], [0]
    extra = SMOKE if options.smoke else ["--quick"] if options.quick else []
    run = against_action_weight if options.action_weights else over_seeds
    with report("accuracy/gaussian_mixture", options) as emit:
        run(options, emit, extra)


if __name__ == "__main__":
    main()
