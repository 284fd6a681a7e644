"""Brackets that other results are held against: the 1-D mixture on grids, and the snapshots of a table.

The spherical distance from the mixture of the main job to N(0, 1), both as weights on a grid over [-8, 8],
for each alpha and grid. With ``--table FILE`` (CSV: a column of times, then coordinates) instead the sum of
the plain distances between consecutive times, every particle weighing one over the number of the first time.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import measures, static
from wfr_flows.measures import Particles, particles

ALPHAS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0, float("inf"))


def mixture_on_grid(size: int) -> tuple[Particles, Particles]:
    grid = jnp.linspace(-8.0, 8.0, size)[:, None]
    ends = measures.gaussian_mixture_1d(), measures.standard_normal(1)
    source, target = (Particles(grid, jax.vmap(end.log_density)(grid)).normalise() for end in ends)
    return source, target


def snapshots(path: str) -> list[Particles]:
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    clouds = [table[table[:, 0] == moment, 1:] for moment in np.unique(table[:, 0])]
    return [particles(cloud, np.full(len(cloud), 1 / len(clouds[0]))) for cloud in clouds]


def solve(distance, source: Particles, target: Particles, alpha: float) -> tuple[dict, float]:
    """Bounds of one distance, and the seconds of a second call."""
    jax.block_until_ready(distance(source, target, alpha))
    start = time.perf_counter()
    result = jax.block_until_ready(distance(source, target, alpha))
    seconds = time.perf_counter() - start
    bounds = {"lower_bound": float(result.lower_bound), "upper_bound": float(result.value)}
    counts = {"num_iterations": int(result.num_iterations), "converged": int(result.converged)}
    return {**bounds, **counts}, seconds


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[600, 2000])
    options.add_argument("--table", help="CSV file of snapshots")
    options.add_argument("--alpha", type=float, default=1.0, help="for --table")
    options.add_argument("--tolerance", type=float, default=1e-4)
    options = options.parse_args()
    sizes, alphas = ([40], ALPHAS[2:3]) if options.smoke else (options.sizes, ALPHAS)
    with jax.enable_x64(True), report("accuracy/static_oracles", options) as emit:
        if options.table:
            distance = jax.jit(lambda s, t, alpha: static.wfr(s, t, alpha, tolerance=options.tolerance))
            clouds = snapshots(options.table)
            solved = [solve(distance, s, t, options.alpha) for s, t in zip(clouds, clouds[1:], strict=False)]
            total = {key: sum(bounds[key] for bounds, _ in solved) for key in solved[0][0]}
            seconds = sum(taken for _, taken in solved)
            emit(
                table=Path(options.table).name,
                alpha=options.alpha,
                tolerance=options.tolerance,
                pairs=len(solved),
                **rounded(total, 8),
                seconds=round(seconds, 3),
            )
            return
        distance = jax.jit(lambda s, t, alpha: static.spherical_wfr(s, t, alpha, tolerance=options.tolerance))
        for size in sizes:
            ends = mixture_on_grid(size)
            for alpha in alphas:
                bounds, seconds = solve(distance, *ends, alpha)
                name = alpha if np.isfinite(alpha) else "inf"
                emit(
                    size=size,
                    alpha=name,
                    tolerance=options.tolerance,
                    **rounded(bounds, 8),
                    seconds=round(seconds, 3),
                )


if __name__ == "__main__":
    main()
