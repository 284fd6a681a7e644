"""The porous medium equation by variational JKO, against Barenblatt's solution of mass one.

On the line: the L1 distance to the reference of `gradient_flows.line_jko`, exact JKO steps of the same size
on cells, and to Barenblatt's density, from which the reference itself is as far as the step size makes it.
In 3-D and 6-D: the second moment at the end over Barenblatt's.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, potentials
from wfr_flows.gradient_flows import FreeEnergy

EXPONENT = 2.0


def solver(dim: int, order: int, sizes: dict):
    """The method, and the convex potential of its maps."""
    reference = gradient_flows.box_reference() if dim == 1 else gradient_flows.ball_reference()
    potential = potentials.icnn(dim, width=16)
    method = gradient_flows.variational_jko(
        FreeEnergy(gradient_flows.power_entropy(EXPONENT, reference=reference)),
        gradient_flows.gradient_of(potential),
        gradient_flows.log_ratio(dim, width=16, link=gradient_flows.softplus),
        order=order,
        average_decay=0.97,
        **sizes,
    )
    return method, potential


def flow(key: jax.Array, method, law: measures.Distribution, step_sizes: jax.Array, particles: int):
    init_key, cloud_key, flow_key = jax.random.split(key, 3)
    start = method.init((init_key, law.spread(cloud_key, particles)))
    return gradient_flows.evolve(method, flow_key, start, step_sizes)


def reference(law: measures.Distribution, radius: float, step_size: float, num: int, size: int):
    """Exact JKO steps, in double precision whatever the setting."""
    with jax.enable_x64(True):
        edge = jnp.linspace(-radius, radius, size + 1)
        share = edge / radius
        cells = gradient_flows.Cells(edge, jnp.diff(0.5 + 0.75 * (share - share**3 / 3)))

        def body(cells, _):
            return gradient_flows.line_jko(cells, step_size, m=EXPONENT)

        return jax.jit(lambda c: jax.lax.scan(body, c, None, length=num))(cells)


def on_the_line(seed: int, step_size: float, sizes: dict, particles: int) -> dict:
    begin, span = 0.002, 0.025
    num = round(span / step_size)
    law, radius = measures.barenblatt(1, EXPONENT, begin), measures.barenblatt_radius(1, EXPONENT, begin)
    cells, decrement = reference(law, radius, step_size, num, 400)
    method, potential = solver(1, 1, sizes)
    start = time.process_time()
    step_sizes = jnp.full(num, step_size)
    state, info = jax.block_until_ready(
        jax.jit(lambda key: flow(key, method, law, step_sizes, particles))(jax.random.key(seed))
    )
    seconds = time.process_time() - start
    x = radius * jnp.linspace(-0.9999, 0.9999, 2001)[:, None]
    sample = gradient_flows.Sample(measures.equally_weighted(x), jax.vmap(law.log_density)(x))
    (end, _), log_rho = jax.jit(
        lambda moves: gradient_flows.carry(potential, gradient_flows.convex_maps(moves), sample)
    )(info.move)
    outer = 1.3 * measures.barenblatt_radius(1, EXPONENT, begin + span)
    grid = np.linspace(-outer, outer, 4001)
    found = np.interp(grid, np.asarray(end[:, 0]), np.exp(np.asarray(log_rho)), left=0.0, right=0.0)
    with jax.enable_x64(True):
        truth = measures.barenblatt(1, EXPONENT, begin + span).log_density
        exact = np.exp(np.asarray(jax.vmap(truth)(jnp.asarray(grid)[:, None])))
        exact_steps = np.asarray(cells.density_at(jnp.asarray(grid)))
    width = grid[1] - grid[0]
    return {
        "l1_to_jko": float(np.abs(found - exact_steps).sum() * width),
        "l1_to_barenblatt": float(np.abs(found - exact).sum() * width),
        "l1_of_jko_to_barenblatt": float(np.abs(exact_steps - exact).sum() * width),
        "newton_decrement": float(np.asarray(decrement).max()),
        "covered": float(np.min(info.covered)),
        "energy_decreases": bool(np.all(np.diff(info.energy) < 0)),
        "cpu_seconds_with_compilation": seconds,
    }


def in_space(seed: int, dim: int, order: int, num: int, sizes: dict, particles: int) -> dict:
    begin, span = 0.001, 0.025
    law = measures.barenblatt(dim, EXPONENT, begin)
    method, _ = solver(dim, order, sizes)
    start = time.process_time()
    step_sizes = jnp.full(num, span / num)
    state, info = jax.block_until_ready(
        jax.jit(lambda key: flow(key, method, law, step_sizes, particles))(jax.random.key(seed))
    )
    seconds = time.process_time() - start
    radius = measures.barenblatt_radius(dim, EXPONENT, begin + span)
    exact = radius**2 * dim / (dim + 2 * EXPONENT / (EXPONENT - 1))
    found = jnp.mean(jnp.sum(state.particles.position**2, axis=1))
    return {
        "second_moment_ratio": float(found) / exact,
        "covered": float(np.min(info.covered)),
        "energy_decreases": bool(np.all(np.diff(info.energy) < 0)),
        "cpu_seconds_with_compilation": seconds,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument("--step-sizes", type=float, nargs="*", default=[5e-3, 2.5e-3, 1e-3])
    options.add_argument("--dims", type=int, nargs="*", default=[3, 6])
    options.add_argument("--order", type=int, default=1, help="of the scheme in 3-D and 6-D")
    options = options.parse_args()
    sizes, particles, num = {"num_iterations": 400, "batch": 1024, "start_steps": 2000}, 20_000, 50
    if options.smoke:
        options.seeds, options.step_sizes, options.dims = [0], [0.0125], []
        sizes, particles, num = {"num_iterations": 3, "batch": 32, "start_steps": 3}, 100, 2
    with report("accuracy/porous_medium", options) as emit:
        for seed in options.seeds:
            for step_size in options.step_sizes:
                found = on_the_line(seed, step_size, sizes, particles)
                emit(dim=1, step_size=step_size, seed=seed, **rounded(found))
        for dim in options.dims:
            found = in_space(0, dim, options.order, num, {**sizes, "num_iterations": 200}, particles)
            emit(dim=dim, order=options.order, num_steps=num, seed=0, **rounded(found))


if __name__ == "__main__":
    main()
