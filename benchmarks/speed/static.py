"""The certified static distance: seconds, iterations and gap against the number of points.

Equally weighted samples of the 1-D mixture and of N(0, 1), as many of each.
"""

import jax

from benchmarks.common import measure, parser, report, rounded
from wfr_flows import measures, static


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000, 2000])
    options.add_argument("--alpha", type=float, default=1.0)
    options.add_argument("--tolerance", type=float, default=1e-4)
    options.add_argument("--repeats", type=int, default=3)
    options = options.parse_args()
    sizes, repeats = ([50], 1) if options.smoke else (options.sizes, options.repeats)

    def solve(source, target):
        return static.spherical_wfr(source, target, options.alpha, tolerance=options.tolerance)

    with report("speed/static", options) as emit:
        for size in sizes:
            source_key, target_key = jax.random.split(jax.random.key(0))
            ends = (
                measures.gaussian_mixture_1d().sample(source_key, size),
                measures.standard_normal(1).sample(target_key, size),
            )
            timing, result = measure(solve, *ends, repeats=repeats)
            certificate = {
                "lower_bound": float(result.lower_bound),
                "upper_bound": float(result.value),
                "relative_gap": float(result.gap / result.value),
            }
            emit(
                size=size,
                alpha=options.alpha,
                tolerance=options.tolerance,
                **rounded(timing._asdict()),
                **rounded(certificate, 6),
                num_iterations=int(result.num_iterations),
                converged=bool(result.converged),
            )


if __name__ == "__main__":
    main()
