"""Sparse plans and the pairs they may use, against dense algebra and linear programming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wfr_flows.static import pairs
from wfr_flows.static.pairs import AllPairs, ListedPairs
from wfr_flows.static.plans import SparsePlan, heaviest, listed_twice, monotone, rounded

N, M = 6, 4
_monotone, _rounded, _heaviest = jax.jit(monotone), jax.jit(rounded), jax.jit(heaviest)
_WEIGHTS = st.just(0.0) | st.floats(1e-6, 1e3)
_few = settings(max_examples=30, deadline=None)


def _weights(size):
    return hnp.arrays(np.float64, size, elements=_WEIGHTS).filter(np.any)


def _assert_marginals(plan, source, target, rtol=1e-12):
    assert (np.asarray(plan.mass) >= 0).all()
    rows, columns = plan.marginals(source.size, target.size)
    np.testing.assert_allclose(rows, source, rtol=0, atol=rtol * source.sum())
    np.testing.assert_allclose(columns, target, rtol=0, atol=rtol * target.sum())


def _listing(plan):
    """Every pair of a dense plan as an entry."""
    n, m = plan.shape
    return SparsePlan(jnp.repeat(jnp.arange(n), m), jnp.tile(jnp.arange(m), n), jnp.asarray(plan).ravel())


def _linear_program(cost, source, target):
    n, m = cost.shape
    constraints = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return scipy.optimize.linprog(cost.ravel(), A_eq=constraints, b_eq=np.concatenate([source, target])).fun


def test_a_plan_knows_its_matrix_and_its_marginals():
    # One pair comes up twice.
    plan = SparsePlan(jnp.array([0, 1, 1]), jnp.array([2, 0, 0]), jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(plan.dense(2, 3), [[0, 0, 1], [5, 0, 0]])
    rows, columns = plan.marginals(2, 3)
    np.testing.assert_array_equal(rows, [1, 5])
    np.testing.assert_array_equal(columns, [5, 0, 1])


@_few
@given(_weights(N), _weights(M))
def test_monotone_plans_have_exact_marginals_and_keep_order(source, target):
    target = target * (source.sum() / target.sum())
    plan = _monotone(source, target)
    _assert_marginals(plan, source, target)
    # Rows and columns both move forward only.
    assert (np.diff(plan.row) >= 0).all()
    assert (np.diff(plan.column) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_monotone_plans_are_optimal_on_the_line(seed):
    random = np.random.default_rng(seed)
    x, y = np.sort(random.normal(size=N)), np.sort(random.normal(size=M))
    source, target = random.uniform(size=N), random.uniform(size=M)
    source[2] = 0.0
    target *= source.sum() / target.sum()
    plan = _monotone(source, target)
    # Order is optimal for every convex cost.
    for power in (1, 2, 4):
        cost = np.abs(x[:, None] - y[None]) ** power
        value = np.sum(plan.mass * cost[plan.row, plan.column])
        np.testing.assert_allclose(value, _linear_program(cost, source, target), rtol=1e-8)


@_few
@given(hnp.arrays(np.float64, (N, M), elements=_WEIGHTS), _weights(N), _weights(M))
def test_rounding_makes_any_plan_exact(plan, source, target):
    target = target * (source.sum() / target.sum())
    _assert_marginals(_rounded(_listing(plan), source, target), source, target)


def test_rounding_leaves_an_exact_plan_alone():
    plan = np.random.default_rng(0).uniform(size=(N, M))
    found = _rounded(_listing(plan), jnp.asarray(plan.sum(axis=1)), jnp.asarray(plan.sum(axis=0)))
    np.testing.assert_allclose(found.dense(N, M), plan, rtol=1e-13)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (5, 40), (1, 3), (3, 1)])
def test_the_heaviest_pairs_are_counted_once(shape):
    plan = np.random.default_rng(0).uniform(size=shape)
    found = _heaviest(plan)
    kept = np.asarray(found.dense(*shape))
    # Whole entries or nothing: a pair listed for its row and for its column would be doubled.
    np.testing.assert_array_equal(kept[kept > 0], plan[kept > 0])
    # The largest eight of every row and of every column are there.
    for dense, sparse in ((plan, kept), (plan.T, kept.T)):
        for all_of, some_of in zip(dense, sparse, strict=True):
            assert set(np.argsort(all_of)[-8:]) <= set(np.flatnonzero(some_of))


def test_the_heaviest_pairs_are_all_of_a_sparse_plan():
    random = np.random.default_rng(1)
    source, target = random.uniform(size=40), random.uniform(size=30)
    # As sparse as a vertex of the polytope, however light some of its pairs.
    source[:10] *= 1e-9
    plan = _monotone(source, target * (source.sum() / target.sum())).dense(40, 30)
    np.testing.assert_array_equal(_heaviest(plan).dense(40, 30), plan)


def test_repeated_pairs_are_found():
    by_row = np.array([[0, 1], [1, 2], [0, 2]])
    by_column = np.array([[0, 1], [1, 2], [0, 2]])
    seen, expected = set(), []
    listed = [(i, j) for i, partners in enumerate(by_row) for j in partners]
    listed += [(i, j) for j, partners in enumerate(by_column) for i in partners]
    for i, j in listed:
        expected.append((i, j) in seen)
        seen.add((i, j))
    np.testing.assert_array_equal(listed_twice(jnp.array(by_row), jnp.array(by_column)), expected)


# --- pairs ---

_ALL = AllPairs()
_LISTED = ListedPairs(jnp.tile(jnp.arange(M), (N, 1)), jnp.tile(jnp.arange(N), (M, 1)))


def _spread(value, filler=0.0):
    """A dense value on the list of all pairs, every pair's second entry masked."""
    listed = jnp.asarray(value)[_LISTED.row, _LISTED.column]
    return jnp.where(listed_twice(*_LISTED), filler, listed)


def test_listed_pairs_sum_and_compare_as_all_pairs_do():
    random = np.random.default_rng(0)
    value, x, y = (jnp.asarray(random.normal(size=s)) for s in ((N, M), N, M))
    for listed, dense in zip(_LISTED.sums(_spread(value)), _ALL.sums(value), strict=True):
        np.testing.assert_allclose(listed, dense, rtol=1e-12)
    for listed, dense in zip(_LISTED.least(_spread(value, jnp.inf)), _ALL.least(value), strict=True):
        np.testing.assert_array_equal(listed, dense)
    combined = _ALL.combine(jnp.subtract, x, y)
    np.testing.assert_array_equal(combined, x[:, None] - y[None, :])
    np.testing.assert_array_equal(_LISTED.combine(jnp.subtract, x, y), combined[_LISTED.row, _LISTED.column])


def test_a_particle_without_pairs_has_sum_zero_and_an_infinite_minimum():
    # Nobody lists source 2, which lists nobody: its partners are masked.
    lists = ListedPairs(jnp.array([[0], [1], [0]]), jnp.array([[0], [1]]))
    mask = jnp.array([True, True, False, False, False])
    rows, columns = lists.sums(mask.astype(float))
    np.testing.assert_array_equal(rows, [1, 1, 0])
    np.testing.assert_array_equal(columns, [1, 1])
    np.testing.assert_array_equal(lists.least(jnp.where(mask, 3.0, jnp.inf))[0], [3, 3, np.inf])


# Dominance of the diagonal as the method has it: strong on the way, all but lost at alpha = inf.
@pytest.mark.parametrize("excess", [1.0, 1e-3])
@pytest.mark.parametrize("transposed", [False, True])
def test_newton_systems_are_solved(excess, transposed):
    random = np.random.default_rng(0)
    weight = 10.0 ** random.uniform(-3, 3, size=(N, M))
    source = weight.sum(axis=1) * (1 + excess * random.uniform(0.5, 1, N))
    target = weight.sum(axis=0) * (1 + excess * random.uniform(0.5, 1, M))
    a, b = random.normal(size=N), random.normal(size=M)
    matrix = np.block([[np.diag(source), weight], [weight.T, np.diag(target)]])
    expected = np.linalg.solve(matrix, np.concatenate([a, b]))
    if transposed:
        y, x = _ALL.factorise(weight.T, jnp.asarray(target), jnp.asarray(source))(b, a)
    else:
        x, y = _ALL.factorise(jnp.asarray(weight), jnp.asarray(source), jnp.asarray(target))(a, b)
    np.testing.assert_allclose(np.concatenate([x, y]), expected, rtol=1e-7, atol=1e-9 * abs(expected).max())
    if not transposed:
        x, y = _LISTED.factorise(_spread(weight), jnp.asarray(source), jnp.asarray(target))(a, b)
        # Conjugate gradients stop at a relative residual, in the scaled system.
        residual = matrix @ np.concatenate([x, y]) - np.concatenate([a, b])
        scale = np.sqrt(np.concatenate([source, target]))
        right = np.concatenate([a, b]) / scale
        assert np.linalg.norm(residual / scale) <= 3 * pairs._CG_TOLERANCE * np.linalg.norm(right)
