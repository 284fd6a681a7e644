"""A step of Q-flow on the public code's demo: CPU seconds, batch 2000, in the plane, networks of its size.

Its velocity has two layers of 256 units between input and output, its classifier three of 312; a step of its
flow, in one direction of the way, takes 3.1 to 3.6 CPU seconds on one thread, its classifiers not counted.
Here `one_way` is what it counts: carrying the batch, the loss, and the gradient of the flow. `step` is all of
`refinement.q_flow`: both directions, 4 steps of both classifiers, the optimisers. Pin to one core to compare
(``taskset -c 0``).

Whether so few Runge-Kutta steps will do is measured on two flows of that network between eight Gaussians and
the checkerboard: how far particles end from where 64 steps take them, root mean square over that of the way,
and how far off the cost is. The first, matched to independent pairs, is where a refinement begins; the other,
matched to the pairs of the first, is nearly as straight as one that is refined.
"""

import time
from functools import partial

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

    return Field(partial(potentials.initialised, network, 3), rates)


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
        path = carry(field, WASSERSTEIN, params, source, time_grid(num_steps))
        values = jax.vmap(ratio.value, (None, None, 0))(ratio_params, jnp.array(1.0), path.position[-1])
        return 0.5 * refinement.transport_cost(path, WASSERSTEIN) - jnp.mean(values)

    flow, classifier = state.flow.params, state.ratio.params[0]
    return {
        "one_way": seconds(jax.value_and_grad(one_way), flow, classifier, ends[0], repeats=repeats),
        "step": seconds(method.step, keys[3], state, ends, repeats=repeats),
    }


def flows(field, ends, steps):
    """Parameters by name: matched to independent pairs, then to the pairs that these make."""
    keys = jax.random.split(jax.random.key(1), 2)
    draw = refinement.between(*ends)
    learn = partial(
        refinement.refine,
        field=field,
        geometry=WASSERSTEIN,
        ratio=potentials.quadratic(2),
        draw=draw,
        rounds=0,
        matching_steps=steps,
        refinement_steps=0,
        learning_rate=1e-2,
    )
    matched = learn(keys[0])
    pairs = jax.jit(partial(refinement.flow_pairs, field, WASSERSTEIN))(matched, *ends)
    return {"matched": matched, "straight": learn(keys[1], pairs=pairs, start=matched)}


def errors(field, learned, source, num_steps):
    """By the name of a flow: how far its ends, and its cost, are from those of 64 steps."""
    found = {}
    for name, params in learned.items():
        rough, fine = (
            jax.jit(partial(carry, field, WASSERSTEIN))(params, source, time_grid(n)) for n in (num_steps, 64)
        )
        missed, way = (jnp.sum((fine.position[-1] - x) ** 2) for x in (rough.position[-1], source.position))
        costs = [refinement.transport_cost(path, WASSERSTEIN) for path in (rough, fine)]
        found[f"error_{name}"] = float(jnp.sqrt(missed / way))
        found[f"cost_error_{name}"] = float(costs[0] / costs[1] - 1)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--num-steps", type=int, nargs="+", default=[2, 4, 8], help="Runge-Kutta steps")
    options = options.parse_args()
    sizes = (4, 4, 16, 1) if options.smoke else (256, 312, 2000, 10)
    with report("speed/q_flow", options) as emit:
        field, keys = velocity(sizes[0]), jax.random.split(jax.random.key(2), 2)
        laws = measures.eight_gaussians(), measures.checkerboard()
        ends = [
            law.sample(key, 64 if options.smoke else 1 << 14) for key, law in zip(keys, laws, strict=True)
        ]
        learned = flows(field, ends, 2 if options.smoke else 1000)
        for num_steps in [1] if options.smoke else options.num_steps:
            found = measured(num_steps, *sizes)
            found |= errors(field, learned, ends[0], num_steps)
            found |= {"times_one_way": PUBLISHED / found["one_way"], "times_step": PUBLISHED / found["step"]}
            emit(num_steps=num_steps, batch=sizes[2], width=sizes[0], **rounded(found), public_code=PUBLISHED)


if __name__ == "__main__":
    main()
