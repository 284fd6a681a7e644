"""One mini-batch of variational JKO: 3 updates of h and 2 of T, batch 512, at the published widths.

"cpu_milliseconds" is process time per mini-batch within a scan of 50, on as many threads as the process may
use; pin it to one core to compare with "published", the public networks on one torch thread. The last lines
have one width for all dimensions.
"""

import time

import jax
import jax.numpy as jnp

from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures
from wfr_flows.gradient_flows import FreeEnergy

# Dimension: width, hidden layers of T and of h, CPU milliseconds of the public networks.
PUBLISHED = {2: (8, 2, 2, 15.5), 8: (32, 3, 3, 27.0), 32: (64, 4, 3, 54.0), 128: (256, 4, 3, 284.0)}
BATCH = 512


def milliseconds(dim: int, width: int, map_depth: int, ratio_depth: int, num: int, repeats: int) -> dict:
    method = gradient_flows.variational_jko(
        FreeEnergy(gradient_flows.entropy(), lambda x: 0.5 * jnp.sum(x**2)),
        gradient_flows.residual(dim, width=width, depth=map_depth),
        gradient_flows.log_ratio(dim, width=width, depth=ratio_depth),
        num_iterations=num,
        inner_steps=3,
        outer_steps=2,
        batch=BATCH,
        start_steps=1,
    )
    state = jax.jit(method.init)(
        (jax.random.key(0), measures.standard_normal(dim).sample(jax.random.key(1), BATCH))
    )
    begin = time.process_time()
    step = jax.jit(method.step).lower(jax.random.key(2), state, 0.1).compile()
    compiling = time.process_time() - begin
    jax.block_until_ready(step(jax.random.key(2), state, 0.1))
    least = float("inf")
    for repeat in range(repeats):
        begin = time.process_time()
        jax.block_until_ready(step(jax.random.key(repeat), state, 0.1))
        least = min(least, time.process_time() - begin)
    return {"cpu_milliseconds": 1e3 * least / num, "compile_cpu_seconds": compiling}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=64, help="of the lines with one width")
    options = options.parse_args()
    num, repeats, dims = (2, 1, [2]) if options.smoke else (50, 5, list(PUBLISHED))
    with report("speed/variational_jko", options) as emit:
        for dim in dims:
            width, map_depth, ratio_depth, published = PUBLISHED[dim]
            found = milliseconds(dim, width, map_depth, ratio_depth, num, repeats)
            ratio = published / found["cpu_milliseconds"]
            emit(dim=dim, width=width, published=published, **rounded({**found, "times_faster": ratio}))
        for dim in [2] if options.smoke else [2, 32]:
            found = milliseconds(dim, options.width, 4, 3, num, repeats)
            emit(dim=dim, width=options.width, **rounded(found))


if __name__ == "__main__":
    main()
