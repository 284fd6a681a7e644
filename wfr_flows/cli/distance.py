"""``wfr-flows distance``: the certified distance between two files, and what it is made of."""

import argparse
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from wfr_flows import static
from wfr_flows.cli.files import (
    check_dimensions,
    check_mass,
    check_new_file,
    check_weights,
    read_end,
    told_in_one_sentence,
    write_figure,
    writing,
)
from wfr_flows.cli.options import InputError, add_printing, positive, positive_or_inf, subcommand
from wfr_flows.cli.table import complain, printed_as_json, screen
from wfr_flows.measures import Particles

DESCRIPTION = """\
Print the Wasserstein-Fisher-Rao distance between two weighted samples, with a lower and an upper bound,
what travels, and what dies or is born without partner.

Weights are used as they stand, so mass that is missing on one side has to grow. --spherical compares the
probability measures instead. Computes in float64, unless JAX_ENABLE_X64 is set.
"""

_FIGURES = (".png", ".pdf", ".svg")
_EQUAL_MASSES = 1e-4


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "distance",
        run,
        help="the certified WFR distance between two weighted samples",
        description=DESCRIPTION,
        example="before.csv after.csv --plot distance.png",
    )
    add = parser.add_argument
    add("source", metavar="A", help="CSV, NPZ or NPY file")
    add("target", metavar="B", help="CSV, NPZ or NPY file")
    add("--weights", metavar="NAME", help="weight column or array of the files (default: weight, if present)")
    add(
        "--alpha",
        type=positive_or_inf,
        default=1.0,
        help="length scale; inf is half the squared W2 distance (default 1)",
    )
    add("--spherical", action="store_true", help="normalise both masses to 1 and keep them so on the way")
    add("--tolerance", type=positive, default=1e-4, help="relative gap between the bounds (default 1e-4)")
    add_printing(parser)
    add("--plot", type=Path, metavar="FILE", help="draw the geodesic: a new .png, .pdf or .svg file")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    if options.plot is not None:
        check_new_file(options.plot, "--plot", _FIGURES)
    with _double_precision():
        source, target = _load(options)
        start = time.perf_counter()
        result = jax.block_until_ready(_solve(source, target, options))
        seconds = time.perf_counter() - start
        value = float(result.value)
        if not math.isfinite(value):
            raise InputError(
                f"d² is {value} in {result.value.dtype}; bring positions and weights to a common scale."
            )
        ends = (source.normalise(), target.normalise()) if options.spherical else (source, target)
        diracs = jax.jit(static.semi_coupling)(result, *ends, options.alpha)
        summary = _summary(options, source, target, result, diracs, seconds)
        _report(summary, options)
        if options.plot is not None:
            _plot(options.plot, diracs, options, value)
    return 0


@contextmanager
def _double_precision() -> Iterator[None]:
    """Float64 in the body, unless the user has chosen a precision."""
    if "JAX_ENABLE_X64" in os.environ:
        yield
    else:
        with jax.enable_x64(True):
            yield


def _load(options: argparse.Namespace) -> tuple[Particles, Particles]:
    check_weights(options.weights, [options.source, options.target])
    with told_in_one_sentence():
        source, target = (read_end(name, options.weights) for name in (options.source, options.target))
    check_dimensions(source.position.shape[1], target.position.shape[1])
    if not options.spherical:
        check_mass(options.source, source)
        check_mass(options.target, target)
    masses = float(source.mass), float(target.mass)
    if math.isinf(options.alpha) and not options.spherical and not np.isclose(*masses, rtol=_EQUAL_MASSES):
        raise InputError(
            f"--alpha inf needs equal masses, and A has {masses[0]:.6g} and B {masses[1]:.6g}; normalise"
            " them, as --spherical would, or give a finite --alpha."
        )
    return source, target


def _solve(source: Particles, target: Particles, options: argparse.Namespace) -> static.StaticResult:
    solve = static.spherical_wfr if options.spherical else static.wfr
    # Static, not traced: on the line alpha = inf is then solved by sorting.
    compiled = jax.jit(solve, static_argnames=("alpha", "tolerance"))
    return compiled(source, target, alpha=options.alpha, tolerance=options.tolerance)


def _summary(
    options: argparse.Namespace,
    source: Particles,
    target: Particles,
    result: static.StaticResult,
    diracs: static.Diracs,
    seconds: float,
) -> dict[str, Any]:
    value = max(0.0, float(result.value))
    lower = min(max(0.0, float(result.lower_bound)), value)
    before, after = np.asarray(diracs.source_mass), np.asarray(diracs.target_mass)
    return {
        "source": options.source,
        "target": options.target,
        "alpha": options.alpha if math.isfinite(options.alpha) else "inf",
        "spherical": options.spherical,
        "squared_distance": value,
        "distance": math.sqrt(value),
        "lower_bound": lower,
        "upper_bound": value,
        "relative_gap": (value - lower) / value if value > 0 else 0.0,
        "tolerance": options.tolerance,
        "converged": bool(result.converged),
        "source_mass": float(source.mass),
        "target_mass": float(target.mass),
        "dies": float(before[after == 0].sum()),
        "born": float(after[before == 0].sum()),
        "source_points": source.position.shape[0],
        "target_points": target.position.shape[0],
        "dimension": source.position.shape[1],
        "seconds": round(seconds, 3),
        "precision": str(result.value.dtype),
        "device": jax.devices()[0].device_kind,
    }


def _report(summary: dict[str, Any], options: argparse.Namespace) -> None:
    if not printed_as_json(summary, options):
        _print_table(summary, screen(options))
    if not summary["converged"]:
        complain(
            f"the bounds hold, but the gap did not fall to {summary['tolerance']:g}"
            f" of d² in {summary['precision']}."
        )


def _print_table(summary: dict[str, Any], console: Console) -> None:
    digits = min(max(6, 2 - math.floor(math.log10(summary["tolerance"]))), 15)

    def show(name: str) -> str:
        return f"{summary[name]:.{digits}g}"

    def outward(name: str, rounding: str) -> Decimal:
        return Context(prec=digits, rounding=rounding).create_decimal(summary[name])

    def measure(end: str) -> str:
        points = summary[f"{end}_points"]
        return f"{summary[f'{end}_mass']:.6g} in {points} point{'s' if points > 1 else ''}"

    # Between equal measures the gap is nothing but rounding, however large beside a d² that is one too.
    to_rounding = ", to rounding" if summary["relative_gap"] > summary["tolerance"] else ""
    converged = f"yes{to_rounding}" if summary["converged"] else "no"
    kind = "SWFR" if summary["spherical"] else "WFR"
    # Under --spherical these are shares of the mass, which is then 1 on either side.
    share = " (of 1)" if summary["spherical"] else ""
    rows = [
        (f"d²_{kind}", show("squared_distance")),
        (f"d_{kind}", show("distance")),
        ("bounds on d²", f"[{outward('lower_bound', ROUND_FLOOR)}, {outward('upper_bound', ROUND_CEILING)}]"),
        ("relative gap", f"{summary['relative_gap']:.1e} (asked: {summary['tolerance']:g})"),
        ("converged", converged),
        ("mass of A", measure("source")),
        ("mass of B", measure("target")),
        ("dies without partner", f"{summary['dies']:.6g}{share}"),
        ("is born without partner", f"{summary['born']:.6g}{share}"),
        ("seconds, compilation included", f"{summary['seconds']:.2f}"),
    ]
    title = "Spherical WFR distance" if summary["spherical"] else "WFR distance"
    meaning = ", d² = ½W₂²" if summary["alpha"] == "inf" else ""
    table = Table(title=f"{title}, alpha = {summary['alpha']}{meaning}", show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _plot(path: Path, diracs: static.Diracs, options: argparse.Namespace, value: float) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    geodesic_at = jax.jit(static.spherical_geodesic if options.spherical else static.wfr_geodesic)
    figure = plotting.transport(diracs, lambda t: geodesic_at(diracs, t, options.alpha))
    kind = "spherical WFR" if options.spherical else "WFR"
    figure.suptitle(
        f"{kind} geodesic, alpha = {options.alpha:g}: d² = {value:.5g}, d = {math.sqrt(value):.5g}"
    )
    with writing(path, "--plot"):
        write_figure(path, figure)
