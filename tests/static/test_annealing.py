"""Smoothed transport: its marginals, its extrapolation, its range, on all pairs and on listed ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.static.annealing import extrapolate, settle, smoothed_plan
from wfr_flows.static.bounds import DualPotentials
from wfr_flows.static.interior_point import Problem
from wfr_flows.static.pairs import AllPairs, ListedPairs
from wfr_flows.static.plans import listed_twice

N, M = 12, 9
MOST_STEPS = 2000
_ALL = AllPairs()
_LISTED = ListedPairs(jnp.tile(jnp.arange(M), (N, 1)), jnp.tile(jnp.arange(N), (M, 1)))
_settle = jax.jit(partial(settle, most_steps=MOST_STEPS), static_argnums=1)


@jax.jit
def _settle_listed(problem, start, smoothing):
    return settle(problem, _LISTED, start, smoothing, MOST_STEPS)


def _problem(inverse_penalty=0.5, seed=0):
    random = np.random.default_rng(seed)
    cost = jnp.asarray(random.uniform(0, 2, (N, M)))
    source, target = (jnp.asarray(random.dirichlet(np.ones(size))) for size in (N, M))
    return Problem(cost, jnp.ones((N, M), bool), source, target, jnp.asarray(inverse_penalty), jnp.zeros(()))


def _zero():
    return DualPotentials(jnp.zeros(N), jnp.zeros(M))


@pytest.mark.parametrize("inverse_penalty", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("smoothing", [0.5, 0.02])
def test_settled_potentials_have_the_marginals_they_ask_for(inverse_penalty, smoothing):
    problem = _problem(inverse_penalty)
    potentials, steps = _settle(problem, _ALL, _zero(), jnp.asarray(smoothing))
    plan = smoothed_plan(problem, _ALL, potentials, jnp.asarray(smoothing))
    assert steps < MOST_STEPS
    weight = problem.source[:, None] * problem.target
    slack = problem.cost - potentials.source[:, None] - potentials.target
    np.testing.assert_allclose(plan, weight * jnp.exp(-slack / smoothing), rtol=1e-4, atol=1e-12)
    # As far as the steps go on: what is missing, for each unit of smoothing, is within the stated share.
    enough = 0.6 * max(smoothing, np.sqrt(smoothing * inverse_penalty))
    for total, side, potential in ((plan.sum(1), "source", 0), (plan.sum(0), "target", 1)):
        wanted = getattr(problem, side) * jnp.exp(-potentials[potential] * inverse_penalty)
        assert jnp.abs(total - wanted).sum() <= 3 * enough


def test_listed_pairs_settle_where_all_pairs_do():
    problem = _problem()
    row, column = _LISTED.row, _LISTED.column
    legal = ~listed_twice(_LISTED.by_row, _LISTED.by_column)
    listed = problem._replace(cost=problem.cost[row, column], legal=legal)
    smoothing = jnp.asarray(0.1)
    dense, _ = _settle(problem, _ALL, _zero(), smoothing)
    other, _ = _settle_listed(listed, _zero(), smoothing)
    plan = smoothed_plan(problem, _ALL, dense, smoothing)
    listed_plan = smoothed_plan(listed, _LISTED, other, smoothing)
    for one, two in zip(dense, other, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_allclose(listed_plan[np.asarray(legal)], plan[row, column][legal], rtol=1e-4)


@pytest.mark.parametrize("offset", [1.0, -1.0])
def test_a_start_thousands_of_smoothings_away_settles_too(offset):
    # Exponentials of such logits are beyond single and double precision.
    problem, smoothing = _problem(), jnp.asarray(1e-3)
    random = np.random.default_rng(1)
    far = DualPotentials(offset + random.normal(size=N), offset + random.normal(size=M))
    potentials, steps = _settle(problem, _ALL, jax.tree.map(jnp.asarray, far), smoothing)
    plan = smoothed_plan(problem, _ALL, potentials, smoothing)
    assert steps < MOST_STEPS
    assert np.isfinite(plan).all()
    wanted = problem.source * jnp.exp(-potentials.source * problem.inverse_penalty)
    np.testing.assert_allclose(plan.sum(), wanted.sum(), rtol=0.1)


def test_particles_without_partner_stay_where_they_are():
    problem = _problem()
    legal = problem.legal.at[3].set(False).at[:, 5].set(False)
    problem = problem._replace(
        legal=legal, source=problem.source.at[3].set(0.0), target=problem.target.at[5].set(0.0)
    )
    start = DualPotentials(jnp.full(N, 0.3), jnp.full(M, 0.3))
    potentials, steps = _settle(problem, _ALL, start, jnp.asarray(0.05))
    plan = smoothed_plan(problem, _ALL, potentials, jnp.asarray(0.05))
    assert steps < MOST_STEPS
    assert np.isfinite(potentials.source).all()
    assert np.isfinite(potentials.target).all()
    np.testing.assert_array_equal(plan[3], 0.0)
    np.testing.assert_array_equal(plan[:, 5], 0.0)


def test_the_step_limit_holds():
    hard = _problem(0.0)
    assert (
        jax.jit(partial(settle, most_steps=3), static_argnums=1)(hard, _ALL, _zero(), jnp.asarray(1e-3))[1]
        == 3
    )


def test_extrapolation_is_exact_for_parabolas():
    def at(smoothing):
        return DualPotentials(
            jnp.array([1.0, -2.0]) + smoothing * 3.0 - 5.0 * smoothing**2, jnp.array([smoothing**2])
        )

    guess = extrapolate((at(0.4), at(0.2), at(0.1)))
    for one, two in zip(guess, at(0.05), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)
