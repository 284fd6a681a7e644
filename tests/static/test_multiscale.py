"""The path for large problems, forced on small ones: it must prove what the dense path proves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfr_flows.measures import particles
from wfr_flows.numerics import blocks
from wfr_flows.static import bounds, solver
from wfr_flows.static.multiscale import _smallest, coarsen

NUM_SOURCE, NUM_TARGET = 150, 120


# A function of its own: the path is chosen while tracing, and this one is traced with the limit at 1.
@jax.jit
def _listed(source, target, alpha):
    assert solver._DENSE_PAIRS == 1
    return solver.wfr(source, target, alpha)


@jax.jit
def _listed_hellinger(source, target, alpha):
    assert solver._DENSE_PAIRS == 1
    return solver.gaussian_hellinger(source, target, alpha)


@jax.jit
def _dense(source, target, alpha):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_DENSE_PAIRS", 1 << 23)
        return solver.wfr(source, target, alpha)


@jax.jit
def _dense_hellinger(source, target, alpha):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_DENSE_PAIRS", 1 << 23)
        return solver.gaussian_hellinger(source, target, alpha)


@pytest.fixture
def multiscale(monkeypatch):
    monkeypatch.setattr(solver, "_DENSE_PAIRS", 1)


def _clouds(dim, masses=(1.0, 1.0), zeros=False, spread=None):
    """In a subspace of three dimensions, so that one program serves all."""
    random = np.random.default_rng(dim)
    clouds = []
    for size, mass, shift in ((NUM_SOURCE, masses[0], 0.0), (NUM_TARGET, masses[1], 0.7)):
        weight = random.uniform(0.1, 1.0, size) if spread is None else random.lognormal(0.0, spread, size)
        if zeros:
            weight[:: size // 20] = 0.0
        position = np.pad(random.normal(size=(size, dim)) + shift, ((0, 0), (0, 3 - dim)))
        clouds.append(particles(position, mass * weight / weight.sum()))
    return clouds


def _assert_same(listed, dense):
    assert listed.converged
    assert dense.converged
    assert listed.gap <= 1e-4 * listed.value
    # Both intervals hold the one true value.
    assert listed.lower_bound <= dense.value * (1 + 1e-12)
    assert dense.lower_bound <= listed.value * (1 + 1e-12)


CASES = {
    "plane": (2, 1.0, {}),
    "space": (3, 1.0, {}),
    "some out of reach": (2, 0.05, {}),
    "all but alone": (3, 1e-3, {}),
    "unequal masses": (2, 0.5, {"masses": (1.0, 1e3)}),
    "zero weights": (2, 0.5, {"zeros": True}),
    "large alpha": (3, 1e4, {}),
    "wasserstein": (2, np.inf, {}),
    "heavy tails": (2, 0.3, {"spread": 4.0}),
    "wasserstein with heavy tails": (3, np.inf, {"spread": 4.0}),
    "wasserstein with zero weights": (3, np.inf, {"zeros": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_listed_pairs_agree_with_all_pairs(case, multiscale):
    dim, alpha, options = CASES[case]
    source, target = _clouds(dim, **options)
    listed = _listed(source, target, alpha)
    _assert_same(listed, _dense(source, target, alpha))
    plan = np.asarray(listed.plan.dense(NUM_SOURCE, NUM_TARGET))
    assert (plan >= 0).all()
    assert not plan[np.asarray(source.weight) == 0].any()
    if case == "some out of reach":
        distance = np.linalg.norm(np.asarray(source.position)[:, None] - target.position[None], axis=-1)
        assert (distance >= np.pi * np.sqrt(alpha)).all(axis=1).any()
    if np.isinf(alpha):
        np.testing.assert_allclose(plan.sum(axis=1), source.weight, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(plan.sum(axis=0), target.weight, rtol=1e-9, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "alpha"), [(1, 1.0), (2, 0.3), (3, 1.0)])
def test_heavy_tails_beyond_all_pairs(dim, alpha):
    # A single particle has as much mass as hundreds of others, more than lists of partners hold.
    random = np.random.default_rng(dim)
    source, target = (
        particles(random.normal(size=(3000, dim)) + shift, random.lognormal(0.0, 3.0, 3000)).normalise()
        for shift in (0.0, 0.5)
    )
    result = jax.jit(solver.wfr)(source, target, alpha)
    assert result.converged
    assert result.gap <= 1e-4 * result.value


@pytest.mark.slow
@pytest.mark.parametrize("few", [1, 3])
def test_a_few_particles_meet_many(few, multiscale):
    # One of them has fewer partners than lists could hold.
    source, target = _clouds(2)
    source = jax.tree.map(lambda leaf: leaf[:few], source)
    listed = _listed(source, target, 0.5)
    _assert_same(listed, _dense(source, target, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [10.0, 30.0])
def test_pairs_that_cost_many_penalties_stall_neither_path(spread, multiscale):
    source, target = (m._replace(position=spread * m.position) for m in _clouds(2))
    result = _listed_hellinger(source, target, 1.0)
    assert result.converged
    _assert_same(result, _dense_hellinger(source, target, 1.0))


def test_potentials_are_feasible_between_all_pairs(multiscale):
    source, target = _clouds(2)
    f, g = _listed(source, target, 1.0).potentials
    problem = bounds.log_entropy(jnp.asarray(1.0))
    cost, reachable = problem.cost(source.position, target.position)
    assert jnp.min(jnp.where(reachable, cost - f[:, None] - g[None, :], 0.0)) >= -1e-12


_coarsen = jax.jit(coarsen, static_argnums=1)


@pytest.mark.parametrize(("size", "num_cells"), [(1, 1), (5, 4), (64, 8), (150, 32), (127, 64)])
@pytest.mark.parametrize("dim", [1, 3])
def test_coarsening_keeps_mass_and_mean_in_balanced_cells(size, num_cells, dim):
    random = np.random.default_rng(size)
    measure = particles(random.normal(size=(size, dim)), random.uniform(0.1, 1.0, size))
    cells, cell = _coarsen(measure, num_cells)
    np.testing.assert_allclose(np.bincount(cell, measure.weight, num_cells), cells.weight, rtol=1e-12)
    assert cells.position.shape == (num_cells, dim)
    np.testing.assert_allclose(cells.mass, measure.mass, rtol=1e-12)
    np.testing.assert_allclose(
        cells.weight @ cells.position, measure.weight @ measure.position, rtol=1e-10, atol=1e-12
    )
    # With unit weights the mass of a cell counts its particles.
    ones = measure._replace(log_weight=jnp.zeros(size))
    assert np.round(_coarsen(ones, num_cells)[0].weight).max() <= -(-size // num_cells)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.sampled_from([0.0, 1.0, 5.0])), min_size=11, max_size=11))
def test_coarsening_is_finite_with_ties_and_zero_weights(rows):
    position, weight = np.array(rows).T
    measure = particles(position, weight + (np.arange(11) == 3))
    cells, _ = _coarsen(measure, 4)
    assert np.isfinite(cells.position).all()
    assert not np.isnan(cells.log_weight).any()
    np.testing.assert_allclose(cells.mass, measure.mass, rtol=1e-12)
    # Means do not leave the hull.
    assert cells.position.min() >= position.min() - 1e-12
    assert cells.position.max() <= position.max() + 1e-12


def _largest(program) -> int:
    """Entries of the largest array in a jaxpr, in the loops and branches of it included."""
    inner = [
        getattr(part, "jaxpr", part)
        for equation in program.eqns
        for value in equation.params.values()
        for part in (value if isinstance(value, tuple | list) else (value,))
        if hasattr(part, "jaxpr") or hasattr(part, "eqns")
    ]
    sizes = [out.aval.size for equation in program.eqns for out in equation.outvars]
    return max([0, *sizes, *map(_largest, inner)])


def test_memory_grows_linearly(multiscale, monkeypatch):
    # Traced only. Small blocks and few cells, so that neither hides what grows.
    monkeypatch.setattr(blocks, "_BLOCK", 1 << 15)
    monkeypatch.setattr("wfr_flows.static.multiscale._CELLS", 32)
    sizes = 1 << 14, 1 << 15
    once, twice = (
        _largest(jax.make_jaxpr(lambda s: solver.wfr(s, s, 1.0))(particles(np.zeros((size, 2)))).jaxpr)
        for size in sizes
    )
    # Lists of partners, compared with each other; a mask of all pairs would have more entries.
    assert twice == 2 * once
    assert twice < sizes[1] ** 2 / 16


@pytest.mark.parametrize("members", [1, 3, 100])
def test_the_search_finds_the_least_of_every_group(members):
    groups, count = 40, 5
    value = np.random.default_rng(members).uniform(size=(7, members * groups)).astype(np.float32)
    value[0] = np.inf
    value[1, 4] = 0.0
    found = np.asarray(jax.jit(_smallest, static_argnums=(1, 2))(value, members, count))
    assert found.shape == (7, count)
    least = value.reshape(7, members, groups).min(axis=1)
    for row in range(1, 7):
        # Distinct groups, the best of each, up to the bits that carry the place.
        assert len(set(found[row] % groups)) == count
        np.testing.assert_allclose(
            np.sort(value[row, found[row]]),
            np.sort(least[row])[:count],
            rtol=2.0 ** (members.bit_length() - 23),
        )
    assert found[1, 0] == 4
    assert ((found >= 0) & (found < value.shape[1])).all()
