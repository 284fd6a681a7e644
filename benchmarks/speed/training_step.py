"""One refinement step: value and gradient of the UOT-gen objective, then Adam.

1-D mixture to N(0, 1), batch 2048 at either end, width 32, 8 Runge-Kutta steps. The ratio is to the wall time
of the public PyTorch code's step, which this script does not run: 0.95 s, measured once on a 2-core machine.
It is a quoted figure, so the ratio means something only on a machine of that kind.
"""

import jax
import optax

from benchmarks.common import measure, parser, report, rounded
from wfr_flows import Geometry, geodesics, measures, potentials

QUOTED_SECONDS = 0.95
QUOTED_SOURCE = "public PyTorch code on a 2-core machine, wall seconds per step (quoted, not measured here)"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--alpha", type=float, default=1.0)
    options.add_argument("--batch", type=int, default=2048)
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--num-steps", type=int, default=8)
    options.add_argument("--repeats", type=int, default=30)
    options = options.parse_args()
    batch, repeats = (128, 2) if options.smoke else (options.batch, options.repeats)

    source, target = measures.gaussian_mixture_1d(), measures.standard_normal(1)
    potential = potentials.resnet(1, width=options.width)
    method = geodesics.uot_gen(
        potential,
        Geometry(options.alpha),
        target.log_density,
        optax.adam(1e-2),
        num_steps=options.num_steps,
    )
    key, init_key, source_key, target_key = jax.random.split(jax.random.key(0), 4)
    ends = source.sample(source_key, batch), target.sample(target_key, batch)
    with report("speed/training_step", options) as emit:
        state = method.init(potential.init(init_key))
        timing, _ = measure(method.step, key, state, ends, repeats=repeats)
        sizes = {"batch": batch, "width": options.width, "num_steps": options.num_steps}
        quoted = {
            "quoted_seconds": QUOTED_SECONDS,
            "quoted_source": QUOTED_SOURCE,
            "times_faster_than_quoted": None if options.smoke else QUOTED_SECONDS / timing.median_seconds,
        }
        emit(**sizes, alpha=options.alpha, **rounded({**timing._asdict(), **quoted}))


if __name__ == "__main__":
    main()
