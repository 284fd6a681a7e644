import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import central_difference, directional_difference, numerical_gradient, tree_dot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wfr_flows.measures import Particles, padded, particles
from wfr_flows.static import (
    DualPotentials,
    dirac_to_measure,
    dual_bound,
    pair_cost,
    plan_cost,
    semi_coupling,
    spherical_time,
    spherical_wfr,
    travel,
    unmatched,
    wfr,
    wfr_geodesic,
)

SIZE = 5
_solve = jax.jit(wfr)
_solve_spherical = jax.jit(spherical_wfr)
_plan_cost, _dual_bound = jax.jit(plan_cost), jax.jit(dual_bound)
_fine = jax.jit(partial(wfr, tolerance=1e-6))
_limited = jax.jit(partial(wfr, tolerance=1e-9))
_finest = partial(_limited, max_iterations=200)


def _cloud(seed, shift=0.0, scale=1.0, mass=None):
    random = np.random.default_rng(seed)
    measure = particles(scale * random.normal(size=(SIZE, 2)) + shift, random.uniform(0.3, 1.5, SIZE))
    if mass is None:
        return measure
    return Particles(measure.position, measure.normalise().log_weight + np.log(mass))


def _pair(seed=0, **options):
    return _cloud(2 * seed, **options), _cloud(2 * seed + 1, shift=0.5, **options)


def _distances(source, target):
    x, y = np.asarray(source.position), np.asarray(target.position)
    return np.linalg.norm(x[:, None] - y[None], axis=-1)


def _reference(source, target, alpha):
    """The dual of log-entropy transport in unit-cone potentials, by sequential quadratic programming."""
    z = _distances(source, target) / (2 * np.sqrt(alpha))
    rows, columns = np.nonzero(z < np.pi / 2)
    cost = -2 * np.log(np.cos(z[rows, columns]))
    weight = np.concatenate([source.weight, target.weight])
    constraint = np.zeros((len(rows), 2 * SIZE))
    constraint[np.arange(len(rows)), rows] = constraint[np.arange(len(rows)), SIZE + columns] = 1
    found = scipy.optimize.minimize(
        lambda p: -np.sum(weight * -np.expm1(-p)),
        np.zeros(2 * SIZE),
        jac=lambda p: -weight * np.exp(-p),
        bounds=[(-8, 40)] * (2 * SIZE),
        constraints={"type": "ineq", "fun": lambda p: cost - constraint @ p, "jac": lambda p: -constraint},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success
    return -2 * alpha * found.fun


def _linear_program(source, target):
    cost = 0.5 * _distances(source, target) ** 2
    rows = np.kron(np.eye(SIZE), np.ones(SIZE))
    columns = np.kron(np.ones(SIZE), np.eye(SIZE))
    marginals = np.concatenate([source.weight, target.weight])
    return scipy.optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=marginals).fun


def _assert_certified(result, tolerance=1e-4):
    assert np.isfinite(result.value)
    assert result.value >= 0
    assert 0 <= result.lower_bound <= result.value * (1 + 1e-12)
    np.testing.assert_allclose(
        result.gap, result.value - result.lower_bound, atol=1e-14 * float(result.value)
    )
    assert result.converged
    assert result.gap <= tolerance * result.value


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0, 20.0])
def test_value_agrees_with_an_independent_solver(seed, alpha):
    source, target = _pair(seed)
    result = _fine(source, target, alpha)
    _assert_certified(result, 1e-6)
    exact = _reference(source, target, alpha)
    assert result.lower_bound <= exact * (1 + 1e-8)
    assert result.value >= exact * (1 - 1e-8)


def test_nine_digits_are_reached():
    source, target = _pair()
    result = _finest(source, target, 1.0)
    _assert_certified(result, 1e-9)
    np.testing.assert_allclose(result.value, _reference(source, target, 1.0), rtol=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
def test_wasserstein_value_agrees_with_linear_programming(seed):
    source, target = _pair(seed, mass=2.0)
    result = _solve(source, target, jnp.inf)
    _assert_certified(result)
    exact = _linear_program(source, target)
    assert result.lower_bound <= exact * (1 + 1e-9)
    assert result.value >= exact * (1 - 1e-9)


def test_large_alpha_approaches_the_wasserstein_value():
    source, target = _pair(mass=1.0)
    result = _solve(source, target, 1e6)
    _assert_certified(result)
    exact = _linear_program(source, target)
    assert result.lower_bound <= exact * (1 + 1e-5)
    assert result.value >= exact * (1 - 1e-5)


@pytest.mark.parametrize("alpha", [0.05, 1.0, 20.0])
def test_potentials_are_feasible_and_give_the_lower_bound(alpha):
    source, target = _pair()
    result = _solve(source, target, alpha)
    f, g = (np.asarray(p) for p in result.potentials)
    z = _distances(source, target) / (2 * np.sqrt(alpha))
    near = z < np.pi / 2
    slack = (-4 * alpha * np.log(np.cos(np.where(near, z, 0.0))) - f[:, None] - g[None, :])[near]
    assert slack.min() >= -1e-9 * alpha
    value = (
        2 * alpha * (source.weight @ -np.expm1(-f / 2 / alpha) + target.weight @ -np.expm1(-g / 2 / alpha))
    )
    np.testing.assert_allclose(value, result.lower_bound, rtol=1e-9)


def _zero_weights(source, target):
    weight = np.asarray(source.weight) * [0, 1, 1, 0, 1], np.asarray(target.weight) * [1, 0, 1, 1, 0]
    return tuple(particles(m.position, w) for m, w in zip((source, target), weight, strict=True))


CASES = {
    "generic": _pair,
    "zero weights": lambda: _zero_weights(*_pair()),
    "some coincident points": lambda: (_cloud(0), _cloud(0)._replace(log_weight=_cloud(1).log_weight)),
    "all source points coincide": lambda: (_cloud(0)._replace(position=jnp.ones((SIZE, 2))), _cloud(1)),
    "far apart": lambda: (_cloud(0), _cloud(1, shift=1e3)),
    "heavy target": lambda: (_cloud(0, mass=1.0), _cloud(1, shift=0.5, mass=1e6)),
    "light target": lambda: (_cloud(0, mass=1.0), _cloud(1, shift=0.5, mass=1e-6)),
    "tiny scale": lambda: _pair(scale=1e-3),
    "large scale": lambda: _pair(scale=1e3),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 100.0, 1e4])
def test_hard_cases_are_certified(case, alpha):
    source, target = CASES[case]()
    result = _solve(source, target, alpha)
    _assert_certified(result)
    largest = 2 * alpha * (source.mass + target.mass)
    hellinger = 2 * alpha * (jnp.sqrt(source.mass) - jnp.sqrt(target.mass)) ** 2
    # Growth alone is the least that a change of mass can cost, dying and being born the most.
    assert hellinger * (1 - 1e-9) <= result.value <= largest * (1 + 1e-9)


@pytest.mark.parametrize("case", ["heavy target", "light target"])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 1e4])
def test_a_small_tolerance_is_met_between_very_different_masses(case, alpha):
    # Almost all of the value is growth: smoothing must not stop while it still matters to the certificate.
    _assert_certified(_fine(*CASES[case](), alpha), 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_hard_cases_in_the_wasserstein_limit(case):
    source, target = (m.normalise() for m in CASES[case]())
    result = _solve(source, target, jnp.inf)
    _assert_certified(result)
    np.testing.assert_allclose(result.value, _linear_program(source, target), rtol=1.1e-4)


def test_equal_measures_are_at_distance_zero():
    source = _cloud(0)
    for alpha in (1e-3, 1.0, 1e4, jnp.inf):
        result = _solve(source, source, alpha)
        # The bounds meet at 0, where no relative gap can be certified: only their size counts.
        assert 0 <= result.value < 1e-6
        assert abs(result.lower_bound) <= result.value


def test_measures_beyond_reach_only_die_and_are_born():
    source, target = _cloud(0), _cloud(1, shift=100.0)
    result = _solve(source, target, 0.5)
    np.testing.assert_allclose(result.value, source.mass + target.mass, rtol=1e-12)
    np.testing.assert_allclose(result.lower_bound, result.value, rtol=1e-12)
    assert result.converged
    np.testing.assert_array_equal(result.plan.dense(SIZE, SIZE), 0.0)


def test_unequal_masses_are_infinitely_far_in_the_wasserstein_limit():
    source, target = _cloud(0, mass=1.0), _cloud(1, mass=2.0)
    assert _solve(source, target, jnp.inf).value == jnp.inf


_COORDINATES = st.floats(-3, 3, allow_subnormal=False)
_WEIGHTS = hnp.arrays(np.float64, SIZE, elements=st.just(0.0) | st.floats(1e-3, 10)).filter(np.any)
# Coordinates that are drawn from few values coincide often.
_POSITIONS = hnp.arrays(np.float64, (SIZE, 2), elements=_COORDINATES | st.sampled_from([0.0, 1.0]))
_CLOUDS = st.builds(particles, _POSITIONS, _WEIGHTS)
_ALPHAS = st.floats(-3, 4).map(lambda exponent: 10**exponent)
_few = settings(max_examples=25, deadline=None)


@_few
@given(_CLOUDS, _CLOUDS, _ALPHAS)
def test_the_distance_is_symmetric(source, target, alpha):
    there, back = _solve(source, target, alpha), _solve(target, source, alpha)
    # Both intervals hold the one true value.
    rounding = 1e-13 * alpha * (source.mass + target.mass)
    assert there.lower_bound <= back.value + rounding
    assert back.lower_bound <= there.value + rounding


@_few
@given(_CLOUDS, _CLOUDS, _ALPHAS, st.floats(-6, 6), st.booleans())
def test_every_distance_is_certified(source, target, alpha, log_ratio, coincide):
    target = target._replace(log_weight=target.log_weight + log_ratio * np.log(10))
    if coincide:
        target = target._replace(position=source.position)
    result = _solve(source, target, alpha)
    rounding = 1e-13 * alpha * float(source.mass + target.mass)
    assert result.converged
    assert 0 <= result.lower_bound <= result.value + rounding
    assert result.gap <= 1e-4 * result.value + rounding
    assert result.value <= 2 * alpha * (source.mass + target.mass) * (1 + 1e-12)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize("apart", [1e-146, 1e-9, 1e-3])
def test_particles_that_almost_coincide_are_no_trouble(apart):
    place = np.array([[apart, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    source, target = particles(place, np.array([0.0, 1.0, 1.0, 1.0, 1.0])), particles(place, np.ones(5))
    result = _solve(source, target, 0.1)
    assert result.converged
    # Mass 1 becomes 2 where it is.
    np.testing.assert_allclose(result.value, 0.2 * (np.sqrt(2) - 1) ** 2, rtol=1e-4)


@_few
@given(
    _CLOUDS, _CLOUDS, _ALPHAS, hnp.arrays(np.float64, (SIZE, SIZE), elements=st.just(0.0) | st.floats(0, 5))
)
def test_any_plan_and_any_potential_are_bounds(source, target, alpha, plan):
    result = _solve(source, target, alpha)
    rounding = 1e-13 * alpha * float(source.mass + target.mass)
    assert _plan_cost(plan, source, target, alpha) >= result.lower_bound - rounding
    assert _dual_bound(plan[0] - plan[1], source, target, alpha) <= result.value + rounding


@pytest.mark.parametrize("level", [0.0, 0.3, 8.0])
def test_a_dual_bound_ascends_along_its_gradient(level):
    # At rest between equal measures every c-transform is 0, and so is what the shift takes the logarithm of.
    source, target = particles([0.0, 1.0, 2.5]), particles([0.0, 1.0, 2.5], [1.0, 2.0, 0.5])
    potential = level * jnp.array([0.0, 1.0, -0.5])
    value = lambda potential: dual_bound(potential, source, target, 0.8)  # noqa: E731
    gradient = jax.grad(value)(potential)
    assert jnp.isfinite(gradient).all()
    assert value(potential + 1e-3 * gradient) >= value(potential)


@pytest.mark.parametrize("factor", [1e-5, 7.0, 1e5])
def test_the_squared_distance_scales_with_mass(factor):
    source, target = _pair()
    scaled = (m._replace(log_weight=m.log_weight + np.log(factor)) for m in (source, target))
    np.testing.assert_allclose(
        _solve(*scaled, 1.0).value, factor * _solve(source, target, 1.0).value, rtol=1e-3
    )


def test_scaling_space_by_a_factor_scales_alpha_by_its_square():
    source, target = _pair()
    wide = (m._replace(position=10 * m.position) for m in (source, target))
    np.testing.assert_allclose(_solve(*wide, 100.0).value, 100 * _solve(source, target, 1.0).value, rtol=1e-3)


@_few
@given(_CLOUDS, _CLOUDS, _CLOUDS, _ALPHAS)
def test_triangle_inequality(a, b, c, alpha):
    for solve in (_solve, _solve_spherical):
        ab, bc, ac = (solve(x, y, alpha) for x, y in ((a, b), (b, c), (a, c)))
        detour = jnp.sqrt(ab.value) + jnp.sqrt(bc.value)
        # Distances are square roots, and so is what rounding may add.
        rounding = jnp.sqrt(1e-13 * alpha * (a.mass + b.mass + c.mass))
        assert jnp.sqrt(ac.lower_bound) <= detour + rounding


def test_spherical_distance_is_that_of_the_normalised_measures():
    source, target = _pair()
    for alpha in (0.1, 1.0, 50.0):
        result = _solve_spherical(source, target, alpha)
        _assert_certified(result)
        plain = _solve(source.normalise(), target.normalise(), alpha)
        theta = np.arccos(1 - plain.value / (4 * alpha))
        np.testing.assert_allclose(result.value, 2 * alpha * theta**2, rtol=2e-3)
        assert plain.lower_bound <= result.value
        assert result.value <= alpha * np.pi**2 / 2


# --- semi-couplings and geodesics ---


_semi_coupling = jax.jit(semi_coupling)


def _coupled(source, target, alpha):
    result = _solve(source, target, alpha)
    return result, _semi_coupling(result, source, target, alpha)


def _marginal(position, diracs_position, mass):
    distance = np.linalg.norm(np.asarray(position)[:, None] - np.asarray(diracs_position)[None], axis=-1)
    return np.where(distance == 0, np.asarray(mass)[None], 0.0).sum(axis=1)


@pytest.mark.parametrize("case", ["generic", "zero weights", "far apart", "heavy target"])
def test_marginals_of_a_semi_coupling_are_exact(case):
    source, target = CASES[case]()
    for alpha in (0.05, 1.0, 100.0):
        _, diracs = _coupled(source, target, alpha)
        assert all(np.isfinite(part).all() for part in diracs)
        assert (diracs.source_mass >= 0).all()
        assert (diracs.target_mass >= 0).all()
        left = _marginal(source.position, diracs.source, diracs.source_mass)
        arrived = _marginal(target.position, diracs.target, diracs.target_mass)
        np.testing.assert_allclose(left, source.weight, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(arrived, target.weight, rtol=1e-10, atol=1e-14)


def test_marginals_of_the_wasserstein_coupling_are_exact():
    source, target = _pair(mass=1.0)
    _, diracs = _coupled(source, target, jnp.inf)
    np.testing.assert_allclose(diracs.source_mass, diracs.target_mass, rtol=1e-12)
    np.testing.assert_allclose(
        _marginal(source.position, diracs.source, diracs.source_mass), source.weight, rtol=1e-10
    )
    np.testing.assert_allclose(
        _marginal(target.position, diracs.target, diracs.target_mass), target.weight, rtol=1e-10
    )


@pytest.mark.parametrize("alpha", [0.05, 1.0, 100.0])
def test_total_mass_on_a_geodesic_and_cost_of_the_semi_coupling(alpha):
    source, target = _pair()
    result, diracs = _coupled(source, target, alpha)
    # The value is the cost of this semi-coupling, not of another.
    cost = pair_cost(
        jnp.sum((diracs.source - diracs.target) ** 2, axis=1), diracs.source_mass, diracs.target_mass, alpha
    ).sum()
    np.testing.assert_allclose(cost, result.value, rtol=1e-8)
    hk = result.value / (2 * alpha)
    for t in (0.0, 0.2, 0.5, 1.0):
        expected = (1 - t) * source.mass + t * target.mass - t * (1 - t) * hk
        np.testing.assert_allclose(travel(diracs, t, alpha).mass.sum(), expected, rtol=1e-8)


def test_a_spherical_geodesic_has_constant_speed():
    source, target = (m.normalise() for m in _pair())
    alpha = 1.0
    plain, diracs = _coupled(source, target, alpha)
    whole = _solve_spherical(source, target, alpha)
    theta = np.arccos(1 - plain.value / (4 * alpha))

    def at(time):
        state = travel(diracs, spherical_time(time, theta)[0], alpha)
        return Particles(state.position, jnp.log(state.mass)).normalise()

    nodes = [0.0, 0.3, 0.8, 1.0]
    measures = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(at, nodes))
    for i, j in ((0, 1), (1, 2), (2, 3), (0, 2)):
        result = _solve_spherical(*(jax.tree.map(lambda a, k=k: a[k], measures) for k in (i, j)), alpha)
        _assert_certified(result)
        share = abs(nodes[j] - nodes[i]) ** 2
        # Every solve is certified to 1e-4, and so is the coupling behind the path.
        np.testing.assert_allclose(result.value, share * whole.value, rtol=5e-4)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_a_geodesic_has_constant_speed_and_a_quadratic_mass(alpha):
    source, target = _pair()
    whole = _finest(source, target, alpha)
    diracs = _semi_coupling(whole, source, target, alpha)
    # Without the padding of the plan, so that the measures on the way stay small, and of one size.
    used = (diracs.source_mass > 0) | (diracs.target_mass > 0)
    diracs = jax.tree.map(lambda leaf: leaf[np.flatnonzero(used)], diracs)
    nodes = [0.2, 0.5, 0.9]
    measures = [padded(wfr_geodesic(diracs, t, alpha), 8 * SIZE) for t in nodes]
    for (t, first), (u, second) in itertools.combinations(zip(nodes, measures, strict=True), 2):
        result = _finest(first, second, alpha)
        _assert_certified(result, 1e-9)
        np.testing.assert_allclose(np.sqrt(result.value), (u - t) * np.sqrt(whole.value), rtol=1e-6)
    for t, measure in zip(nodes, measures, strict=True):
        expected = (1 - t) * source.mass + t * target.mass - t * (1 - t) * whole.value / (2 * alpha)
        np.testing.assert_allclose(measure.mass, expected, rtol=1e-9)


def test_unmatched_mass_dies_and_is_born_in_place():
    source, target = _pair()
    # One particle of each lies out of everybody's reach.
    source = source._replace(position=source.position.at[1].set(50.0))
    target = target._replace(position=target.position.at[3].set(-50.0))
    result, diracs = _coupled(source, target, 1.0)
    dies, born = unmatched(result, source, target)
    np.testing.assert_array_equal(dies.weight > 0, np.arange(SIZE) == 1)
    np.testing.assert_array_equal(born.weight > 0, np.arange(SIZE) == 3)
    np.testing.assert_array_equal(dies.position, source.position)
    np.testing.assert_array_equal(born.weight[3], target.weight[3])
    for t in (0.25, 0.5):
        measure = wfr_geodesic(diracs, t, 1.0)
        for place, expected in ((50.0, (1 - t) ** 2 * source.weight[1]), (-50.0, t**2 * target.weight[3])):
            there = (measure.position == place).all(axis=1)
            np.testing.assert_allclose(measure.weight[there].sum(), expected, rtol=1e-12)


# --- derivatives, transformations, types ---

_gradient = jax.jit(jax.grad(lambda s, t, alpha: wfr(s, t, alpha, tolerance=1e-9).value, argnums=(0, 1, 2)))


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_gradients_match_finite_differences_of_the_independent_solver(alpha):
    # Differences of our own value would carry its gap; those of the reference are good to 1e-7.
    pair = _pair()
    gradient = _gradient(*pair, alpha)
    for side in range(2):
        for field in Particles._fields:

            def value(x, side=side, field=field):
                moved = list(pair)
                moved[side] = pair[side]._replace(**{field: x})
                return _reference(*moved, alpha)

            numerical = numerical_gradient(value, getattr(pair[side], field), step=1e-3)
            actual = getattr(gradient[side], field)
            np.testing.assert_allclose(actual, numerical, atol=1e-6 * abs(numerical).max(), rtol=0)
    numerical = numerical_gradient(lambda a: _reference(*pair, float(a)), np.array(alpha), step=1e-3)
    np.testing.assert_allclose(gradient[2], numerical, rtol=1e-6)


def test_gradients_in_the_wasserstein_limit_match_the_linear_program():
    pair = _pair(mass=1.0)
    gradient = _gradient(*pair, jnp.inf)
    random = np.random.default_rng(0)
    for _ in range(3):
        # Only changes that keep both masses equal leave the value finite.
        change = random.normal(size=2 * SIZE)
        change -= change.mean()
        change[:SIZE] += 0.1
        change[SIZE:] += change[:SIZE].sum() / SIZE - change[SIZE:].sum() / SIZE
        direction = [
            Particles(random.normal(size=(SIZE, 2)), part / m.weight)
            for m, part in zip(pair, np.split(change, 2), strict=True)
        ]

        def value(h, change=change, direction=direction):
            return _linear_program(
                *(
                    particles(m.position + h * d.position, m.weight + h * part)
                    for m, d, part in zip(pair, direction, np.split(change, 2), strict=True)
                )
            )

        numerical = central_difference(value, 0.0)
        actual = tree_dot(tuple(gradient[:2]), tuple(direction))
        np.testing.assert_allclose(actual, numerical, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_gradients_of_a_dirac_match_its_closed_form(alpha):
    # One source particle, the others without weight: every derivative is known exactly.
    source = padded(Particles(jnp.array([[0.2, -0.1]]), jnp.array([0.4])), SIZE)
    target = _cloud(1)

    def closed(s, t, a):
        return dirac_to_measure(s.position[0], jnp.exp(s.log_weight[0]), t, a)

    actual = _gradient(source, target, alpha)
    expected = jax.jit(jax.grad(closed, argnums=(0, 1, 2)))(source, target, alpha)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-8 * abs(b).max())


def test_gradient_with_zero_weights_coincident_points_and_unmatched_mass_is_finite():
    source, target = _zero_weights(*_pair())
    source = source._replace(position=source.position.at[1].set(target.position[2]).at[4].set(99.0))
    for leaf in jax.tree.leaves(_gradient(source, target, 1.0)):
        assert np.isfinite(leaf).all()


def test_gradient_of_the_spherical_distance_ignores_mass():
    source, target = _pair()
    both = jax.jit(jax.value_and_grad(lambda s: spherical_wfr(s, target, 1.0, tolerance=1e-9).value))
    _, gradient = both(source)
    np.testing.assert_allclose(gradient.log_weight.sum(), 0.0, atol=1e-10)
    direction = Particles(jnp.ones_like(source.position), jnp.zeros(SIZE))
    expected = directional_difference(lambda s: both(s)[0], source, direction, step=1e-3)
    np.testing.assert_allclose(gradient.position.sum(), expected, rtol=1e-4)


def test_a_plan_with_other_marginals_proves_nothing_in_the_wasserstein_limit():
    source, target = _pair(mass=1.0)
    product = source.weight[:, None] * target.weight
    assert _plan_cost(product, source, target, jnp.inf) < jnp.inf
    assert _plan_cost(0.1 * product, source, target, jnp.inf) == jnp.inf
    with pytest.raises(ValueError, match="plan has shape"):
        plan_cost(product[:2], source, target, 1.0)


def test_the_iteration_limit_is_reported():
    result = _limited(*_pair(), 1.0, max_iterations=3)
    assert not result.converged
    assert result.num_iterations == 3
    assert result.lower_bound <= result.value


def test_results_are_trees_of_arrays():
    result = _solve(*_pair(), 1.0)
    assert isinstance(result.potentials, DualPotentials)
    assert result.potentials.source.shape == result.potentials.target.shape == (SIZE,)
    assert result.plan.dense(SIZE, SIZE).shape == (SIZE, SIZE)
