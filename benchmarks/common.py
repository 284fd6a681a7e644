"""What every benchmark shares: options, timing, the machine, JSON lines."""

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import wfr_flows

Emit = Callable[..., None]


class Timing(NamedTuple):
    """Seconds: one ahead-of-time compilation, then the median and the least of ``repeats`` calls."""

    compile_seconds: float
    median_seconds: float
    least_seconds: float
    repeats: int


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the two options every benchmark has."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--smoke", action="store_true", help="tiny sizes, to see that it runs; the numbers mean nothing"
    )
    options.add_argument("--out", type=Path, help="file that also receives the JSON lines (replaced)")
    return options


def installed(module: str) -> bool:
    """Whether an optional library is there; what needs it says "skipped" in its record where it is not."""
    return importlib.util.find_spec(module) is not None


def optimal_cost(first: Any, last: Any) -> float:
    """``W₂²`` of equal shares at points ``[n, d]`` and ``[m, d]``, by the network simplex of POT, an extra.

    NaN where a point is not finite.

    Raises:
      RuntimeError: it ended before the optimum.
    """
    import ot  # noqa: PLC0415  optional

    first, last = (np.asarray(points, float) for points in (first, last))
    if not (np.isfinite(first).all() and np.isfinite(last).all()):
        return math.nan
    cost = ot.dist(first, last)
    value, log = ot.emd2([], [], cost, numItermax=10**8, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"no optimum between {cost.shape} points: {log['warning']}")
    return float(value)


@contextmanager
def report(name: str, options: argparse.Namespace) -> Iterator[Emit]:
    """Yields ``emit(**record)``, which prints one JSON line a call; the first line describes the machine."""
    lines: list[str] = []
    if options.smoke:  # Nearly all of a smoke run is compilation.
        jax.config.update("jax_disable_most_optimizations", True)

    def emit(**record: Any) -> None:
        lines.append(json.dumps({"benchmark": name, **record}, allow_nan=False))
        print(lines[-1], flush=True)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text("\n".join(lines) + "\n")

    emit(smoke=options.smoke, machine=machine())
    yield emit


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    device = jax.devices()[0]
    return {
        "platform": platform.platform(),
        "backend": device.platform,
        "device": device.device_kind,
        "num_devices": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "float64": bool(jax.config.jax_enable_x64),
        "compilation_cache": jax.config.jax_compilation_cache_dir is not None,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "wfr_flows": wfr_flows.__version__,
    }


def measure(function: Callable, *arguments: Any, repeats: int) -> tuple[Timing, Any]:
    """Compile ``function`` for ``arguments``, warm up once, time ``repeats`` calls; also its result."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    result = jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return Timing(compile_seconds, statistics.median(seconds), min(seconds), repeats), result


def rounded(record: dict[str, Any], digits: int = 4) -> dict[str, Any]:
    """The record with its floats at ``digits`` significant digits."""

    def shorten(value: Any) -> Any:
        return float(f"{value:.{digits}g}") if isinstance(value, float) and math.isfinite(value) else value

    return {name: shorten(value) for name, value in record.items()}
