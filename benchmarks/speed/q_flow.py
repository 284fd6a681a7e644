"""A step of Q-flow on the public code's demo: CPU seconds, batch 2000, in the plane, networks of its size.

Its velocity has two layers of 256 units between input and output, its classifier three of 312; a step of its
flow, in one direction of the way, takes 3.1 to 3.6 CPU seconds on one thread, its classifiers not counted.
Here `one_way` is what it counts: carrying the batch, the loss, and the gradient of the flow. `step` is all of
`refinement.q_flow`: both directions, 4 steps of both classifiers, the optimisers. Pin to one core to compare
(``taskset -c 0``).
"""

import time

import jax
import jax.numpy as jnp
import optax

from benchmarks.common import parser, report, rounded
from wfr_flows import measures, potentials, refinement
from wfr_flows.dynamics import Field, Geometry, Rates, carry, time_grid
from wfr_flows.potentials import SiluNetwork

PUBLISHED = 3.1
WASSERSTEIN = Geometry(float("inf"), spherical=False)


def velocity(width: int) -> Field:
    network = SiluNetwork((width, width), 2)

    def rates(params, t, x):
        return Rates(network.apply({"params": params}, jnp.append(x, t)), jnp.zeros(()))  # pyright: ignore

    return Field(lambda key: network.init(key, jnp.zeros(3))["params"], rates)


def seconds(function, *arguments, repeats: int) -> float:
    run = jax.jit(function)
    jax.block_until_ready(run(*arguments))
    since = time.process_time()
    for _ in range(repeats):
        jax.block_until_ready(run(*arguments))
    return (time.process_time() - since) / repeats


def measured(num_steps: int, width: int, ratio_width: int, batch: int, repeats: int) -> dict[str, float]:
    field, ratio = velocity(width), potentials.mlp(2, width=ratio_width)
    keys = jax.random.split(jax.random.key(0), 4)
    ends = measures.eight_gaussians().sample(keys[0], batch), measures.checkerboard().sample(keys[1], batch)
    method = refinement.q_flow(
        field, WASSERSTEIN, ratio, optax.adam(1e-4), optax.adam(1e-3), num_steps=num_steps
    )
    state = method.init(refinement.init_params(field, ratio, keys[2]))

    def one_way(params, ratio_params, source):
        path = carry(field, WASSERSTEIN, params, source, time_grid(num_steps), checkpoint=False)
        values = jax.vmap(ratio.value, (None, None, 0))(ratio_params, jnp.array(1.0), path.position[-1])
        return 0.5 * refinement.transport_cost(path, WASSERSTEIN) - jnp.mean(values)

    flow, classifier = state.flow.params, state.ratio.params[0]
    return {
        "one_way": seconds(jax.value_and_grad(one_way), flow, classifier, ends[0], repeats=repeats),
        "step": seconds(method.step, keys[3], state, ends, repeats=repeats),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--num-steps", type=int, nargs="+", default=[2, 4, 8], help="Runge-Kutta steps")
    options = options.parse_args()
    sizes = (4, 4, 16, 1) if options.smoke else (256, 312, 2000, 10)
    with report("speed/q_flow", options) as emit:
        for num_steps in [1] if options.smoke else options.num_steps:
            found = measured(num_steps, *sizes)
            found |= {"times_one_way": PUBLISHED / found["one_way"], "times_step": PUBLISHED / found["step"]}
            emit(num_steps=num_steps, batch=sizes[2], width=sizes[0], **rounded(found), public_code=PUBLISHED)


if __name__ == "__main__":
    main()
