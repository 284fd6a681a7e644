"""One inner iteration of an ICNN-JKO step: CPU seconds, batch 1024, width 64, towards a Gaussian.

The public PyTorch code takes 106 and 254 CPU ms in d = 2 and 6, on one thread, in the first step. Pin to one
core to compare (``taskset -c 0``).
"""

import time

import jax
import jax.numpy as jnp
import optax

from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, potentials
from wfr_flows.gradient_flows import Sample

PUBLISHED = {2: 106.0, 6: 254.0}


def iteration(dim: int, width: int, depth: int, batch: int, repeats: int) -> float:
    source, target = measures.standard_normal(dim), measures.gaussian(jnp.ones(dim), 2 * jnp.eye(dim))
    method = gradient_flows.icnn_jko(
        potentials.icnn(dim, width=width, depth=depth),
        gradient_flows.free_energy(target.log_density),
        optax.adam(5e-3),
        num_iterations=repeats,
        batch=batch,
    )
    particles = source.sample(jax.random.key(0), 4 * batch)
    start = Sample(particles, jax.vmap(source.log_density)(particles.position))
    state, step = method.init((jax.random.key(1), start)), jax.jit(method.step)
    jax.block_until_ready(step(jax.random.key(2), state, 0.05))
    since = time.process_time()
    jax.block_until_ready(step(jax.random.key(3), state, 0.05))
    return 1000 * (time.process_time() - since) / repeats


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dims", type=int, nargs="+", default=[2, 6, 12, 32])
    options.add_argument("--depths", type=int, nargs="+", default=[1, 2])
    options = options.parse_args()
    if options.smoke:
        options.dims, options.depths = [2], [1]
    width, batch, repeats = (4, 32, 2) if options.smoke else (64, 1024, 100)
    with report("speed/icnn_jko", options) as emit:
        for dim in options.dims:
            for depth in options.depths:
                found = {"milliseconds": iteration(dim, width, depth, batch, repeats)}
                emit(dim=dim, width=width, depth=depth, **rounded(found), public_code=PUBLISHED.get(dim))


if __name__ == "__main__":
    main()
