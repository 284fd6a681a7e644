"""The start: optimal lines, and a loss that vanishes on the field of straight lines."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import measures, potentials
from wfr_flows.dynamics import Geometry, carry, potential_field, time_grid
from wfr_flows.proximal import EULER, optimal_lines, straight_lines, straighten


def test_lines_on_the_line_keep_the_order(key):
    ends = measures.standard_normal(1), measures.gaussian([5.0], [[4.0]])
    lines = optimal_lines(key, *ends, 60, most=30)
    for start, end in zip(*(side.reshape(2, 30) for side in lines), strict=True):
        assert np.all(np.diff(end[np.argsort(start)]) > 0)
    np.testing.assert_allclose(np.mean(lines.end), 5.0, atol=1.5)


def test_lines_are_dealt_out_evenly(key):
    # Every place of a sample begins or ends as many lines as its weight asks for, over all assignments.
    place = jnp.arange(12.0)[:, None]
    heavy = measures.empirical(measures.particles(place, jnp.where(place[:, 0] < 6, 3.0, 1.0)))
    lines = optimal_lines(key, measures.empirical(measures.equally_weighted(place)), heavy, 48, most=10)
    for side, expected in ((lines.start, 4.0), (lines.end, jnp.where(place[:, 0] < 6, 6.0, 2.0))):
        np.testing.assert_allclose(np.bincount(side[:, 0].astype(int), minlength=12), expected, atol=1)


def test_loss_is_the_error_of_the_place_of_arrival(key):
    # Everything goes to one place, and the field heads for one at distance 2 from it.
    goal = jnp.array([1.0, -1.0])
    center = measures.empirical(measures.equally_weighted(goal[None]))
    lines = optimal_lines(key, measures.standard_normal(2), center, 10)
    heading = potentials.arrival(potentials.from_function(lambda p, t, x: jnp.vdot(p, x)), 2, margin=1e-9)
    loss = jax.jit(straight_lines(potential_field(heading, Geometry(jnp.inf)), lines))
    for aim, expected in ((goal, 0.0), (goal + jnp.array([0.0, 2.0]), 2.0)):
        params = {"base": aim, "quadratic": jnp.zeros((2, 2))}
        np.testing.assert_allclose(loss(params, key), expected, rtol=1e-5, atol=1e-12)


def test_straightened_paths_end_where_they_did_by_any_number_of_steps(key):
    # Lines shrink places by a common factor, which a potential of this form can do evenly.
    def value(params, t, x):
        return (params[0] + params[1] * t) * jnp.sum(x**2) / (1 + params[2] * t)

    field = potential_field(
        potentials.from_function(value, lambda key: jnp.array([0.1, 0.4, 0.1])), Geometry(jnp.inf)
    )
    move = jax.jit(partial(carry, field, Geometry(jnp.inf), solver=EULER))
    before, normal = field.init(key), measures.standard_normal(1)
    after = straighten(key, field, before, normal, 3000, num_steps=4, size=200)
    start = normal.sample(key, 50)
    goal = move(before, start, time_grid(4)).position[-1]
    assert jnp.max(jnp.abs(move(before, start, time_grid(1)).position[-1] - goal)) > 0.1
    for n in (1, 4, 16):
        np.testing.assert_allclose(move(after, start, time_grid(n)).position[-1], goal, atol=0.02)
