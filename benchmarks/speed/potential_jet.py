"""What a batch of jets (value, gradient, Laplacian, time derivative) costs against the dimension.

The closed form of the ResNet potential at width 32 and batch 2048; for small dimensions also the automatic
differentiation of the same value. Ratios are to the closed form at d = 32.
"""

import jax
import jax.numpy as jnp

from benchmarks.common import Timing, measure, parser, report, rounded
from wfr_flows import potentials

REFERENCE_DIM = 32
DIMS = (32, 1, 2, 8, 100, 256)  # the reference first, so that every line can carry its ratio
LARGEST_AUTODIFF_DIM = 32


def time_jets(jet, params, dim: int, batch: int, repeats: int) -> Timing:
    position = jax.random.normal(jax.random.key(1), (batch, dim))
    time = jnp.full((), 0.5, position.dtype)
    return measure(jax.vmap(jet, (None, None, 0)), params, time, position, repeats=repeats)[0]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=2048)
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--repeats", type=int, default=30)
    options = options.parse_args()
    batch, repeats = (64, 2) if options.smoke else (options.batch, options.repeats)

    reference = None
    with report("speed/potential_jet", options) as emit:
        for dim in DIMS:
            potential = potentials.resnet(dim, width=options.width)
            params = potential.init(jax.random.key(0))
            kinds = {"closed form": potential.jet}
            if dim <= LARGEST_AUTODIFF_DIM:
                kinds["autodiff"] = potentials.from_function(potential.value).jet
            for kind, jet in kinds.items():
                timing = time_jets(jet, params, dim, batch, repeats)
                reference = reference or timing.median_seconds
                emit(
                    dim=dim,
                    jet=kind,
                    batch=batch,
                    width=options.width,
                    **rounded({**timing._asdict(), "ratio_to_reference": timing.median_seconds / reference}),
                    reference=f"closed form, dim {REFERENCE_DIM}",
                )


if __name__ == "__main__":
    main()
