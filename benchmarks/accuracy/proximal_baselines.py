"""The other rows of the published table of proximal flows, and what growth adds, by our own code.

``ot-flow`` is maximum likelihood through `geodesics.uot_gen` at ``alpha = inf`` with the weights of OT-Flow
(1, 100, 5), samples drawn backward. ``potential-flow-gan`` is the proximal flow with the critic of W₁, no
kinetic cost and a Hamilton-Jacobi residual of weight .1. Both begin at rest, to the pinwheel in D dimensions
as in `benchmarks.accuracy.proximal`, with its numbers; null is not finite.

``growth`` carries two clusters of equal mass, 6 apart, to the same places with masses .2 and .8, given by
weighted data: at ``alpha = 0.5`` by weights, from rest, and at ``alpha = inf`` by motion, from the start of
`proximal.fit`. (From rest nothing moves at ``alpha = inf``: inside a cluster the ratio of densities is flat,
and the critic with it, so that no particle gains by a small move.) ``action`` stands beside the exact value,
½W₂² and the spherical Wasserstein-Fisher-Rao distance.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accuracy.proximal import WASSERSTEIN, embedded, judged, numbers, sampler, tools
from benchmarks.accuracy.two_dimensional import ot_flow_method
from benchmarks.common import parser, report, rounded
from wfr_flows import geodesics, measures, metrics, potentials, proximal, static, training
from wfr_flows.dynamics import Geometry, potential_field, time_grid

APART, SHARE = 6.0, 0.8


def ot_flow(options, key: jax.Array, target) -> tuple:
    """``generate`` of the flow from data to noise run backward, and the step at which it diverged."""
    normal, (potential, method) = measures.standard_normal(target.dim), ot_flow_method(target.dim)
    draw = measures.spread_ends(target, normal, options.batch)
    init_key, train_key = jax.random.split(key)
    state, diverged_at = trained(
        method, train_key, method.init(potential.init(init_key)), draw, options.steps
    )
    backward = jax.jit(
        partial(geodesics.generate, potential, WASSERSTEIN, state.params), static_argnames="num_steps"
    )
    return lambda noise, num_steps: backward(noise, num_steps=num_steps), diverged_at


def potential_flow_gan(options, key: jax.Array, target) -> tuple:
    hardly = 1e-6
    tool = tools(target.dim, 48, "penalty", hardly)
    method = proximal.proximal(
        tool.field,
        WASSERSTEIN,
        tool.critic,
        training.cosine_muon(options.steps, 3e-3),
        training.cosine_muon(5 * options.steps, 3e-3),
        bound=proximal.wasserstein_bound,
        kinetic_weight=hardly,
        residual_weight=0.1 / hardly,
    )
    keys = jax.random.split(key, 3)
    state = method.init((tool.field.init(keys[0]), tool.critic.init(keys[1])))
    draw = measures.spread_ends(measures.standard_normal(target.dim), target, options.batch)
    state, diverged_at = trained(method, keys[2], state, draw, options.steps)
    return sampler(tool, state.outer), diverged_at


def trained(method, key, state, draw, steps: int) -> tuple:
    try:
        return training.run(method, key, state, draw, steps, chunk_size=min(50, steps)), None
    except training.NonFiniteError as error:
        return error.state, error.step


ROWS = {"ot-flow": ot_flow, "potential-flow-gan": potential_flow_gan}


def growth(options, alpha: float, seed: int) -> dict:
    """Masses .5 and .5 to .2 and .8 on two clusters."""
    keys = jax.random.split(jax.random.key(seed), 4)
    centers, spread = jnp.array([[-APART / 2, 0.0], [APART / 2, 0.0]]), 0.09 * jnp.tile(jnp.eye(2), (2, 1, 1))
    source = measures.mixture(jnp.ones(2), centers, spread)
    place = source.spread(keys[0], options.data).position
    heavy = jnp.where(place[:, 0] > 0, SHARE, 1 - SHARE)
    data = measures.particles(place, heavy / jnp.sum(heavy))
    still, geometry, critic = np.isinf(alpha), Geometry(alpha), potentials.smooth_critic(2, width=48)
    potential = potentials.mlp(2, width=48)
    field = potential_field(potentials.arrival(potential, 2) if still else potential, geometry)
    since = time.process_time()
    state = proximal.fit(
        keys[1],
        field,
        geometry,
        critic,
        source,
        measures.empirical(data),
        start_steps=options.start_steps if still else 0,
        steps=options.steps,
        straighten_steps=options.start_steps // 2,
        batch=options.batch,
        num_lines=options.lines,
        kinetic_weight=0.02,
        flow_rate=1e-4 if still else 3e-3,
    )
    seconds = time.process_time() - since
    noise = source.spread(keys[2], 2000)
    carry = jax.jit(partial(proximal.carry_with_costs, field, geometry))
    found = carry(state.average, noise, time_grid(5))
    moved = found.trajectory.at(-1).normalise()
    fresh = measures.resample(keys[3], data, 2000)
    if still:
        exact = 0.5 * (SHARE - 0.5) * APART**2
    else:
        exact = static.spherical_wfr(noise, measures.thinned(keys[3], data, 2000), alpha).value
    return numbers(
        {
            "mass_at_right": jnp.sum(moved.weight * (moved.position[:, 0] > 0)),
            "mass_sought": SHARE,
            "action": found.action,
            "exact_action": exact,
            "sinkhorn": jax.jit(metrics.sinkhorn_divergence)(moved, fresh).value,
            "effective_share": moved.effective_sample_size / 2000,
        }
    ) | {"seconds": seconds}


def main() -> None:
    options = parser(__doc__)
    add = options.add_argument
    add("--rows", choices=[*ROWS, "growth"], nargs="+", default=[*ROWS, "growth"])
    add("--dims", type=int, nargs="+", default=[2, 7, 12])
    add("--steps", type=int, default=500)
    add("--start-steps", type=int, default=12000)
    add("--lines", type=int, default=20300)
    add("--batch", type=int, default=1024)
    add("--samples", type=int, default=5000)
    add("--data", type=int, default=20000)
    options = options.parse_args()
    options.target = "pinwheel"
    if options.smoke:
        options.dims, options.steps, options.batch, options.samples, options.data = [2], 2, 16, 50, 100
        options.start_steps, options.lines = 6, 100
    with report("accuracy/proximal_baselines", options) as emit:
        for row in options.rows:
            if row == "growth":
                for alpha in (0.5, float("inf")):
                    label = "inf" if np.isinf(alpha) else alpha
                    emit(row=row, alpha=label, **rounded(growth(options, alpha, 0)))
                continue
            for dim in options.dims:
                since, target = time.process_time(), embedded(options.target, dim)
                keys = jax.random.split(jax.random.key(0))
                generate, diverged_at = ROWS[row](options, keys[0], target)
                seconds = time.process_time() - since
                found = numbers(judged(options, keys[1], generate, target))
                emit(row=row, dim=dim, diverged_at=diverged_at, **rounded(found | {"seconds": seconds}))


if __name__ == "__main__":
    main()
