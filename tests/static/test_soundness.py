"""Certificates are true: ties, scales of length, mass and alpha, dimensions, against exact values."""

from decimal import Decimal
from functools import cache, partial

import exact_reference
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from helpers import single_precision

from wfr_flows import static
from wfr_flows.measures import Particles, particles

SIZE, DIM = 3, 30
# Name: the solver of normalised or given measures, the cost, whether masses are prescribed.
KINDS = {
    "wfr": (static.wfr, "cone", False),
    "spherical_wfr": (static.spherical_wfr, "cone", False),
    "gaussian_hellinger": (static.gaussian_hellinger, "quadratic", False),
    "wasserstein": (lambda s, t, alpha: static.wasserstein(s, t), "quadratic", True),
    "wasserstein_1": (lambda s, t, alpha: static.wasserstein_1(s, t), "euclidean", True),
}


@cache
def _solver(name):
    return jax.jit(KINDS[name][0])


def _draw(random, name):
    """A few particles at any scale, often tied, in up to thirty dimensions, and an alpha."""
    dim, scale = int(random.integers(1, DIM + 1)), 10.0 ** random.uniform(-12, 12)
    alpha = np.inf if KINDS[name][2] else 10.0 ** random.uniform(-6, 12)
    if random.random() < 0.5:
        alpha *= scale**2
    same_mass = name == "spherical_wfr" or KINDS[name][2] or random.random() < 0.5
    masses = [1.0, 1.0] if same_mass else 10.0 ** random.uniform(-9, 9, size=2)
    pair = []
    for mass in masses:
        tied = random.random() < 0.4
        position = random.integers(0, 3, (SIZE, dim)) if tied else random.normal(size=(SIZE, dim))
        weight = 10.0 ** random.uniform(-4, 0, SIZE) * (random.random(SIZE) < 0.85)
        weight[0] += 1e-9
        position = np.pad(scale * position, ((0, 0), (0, DIM - dim)))
        pair.append(particles(position, mass * weight / weight.sum()))
    return *pair, alpha


def _exact(name, source, target, alpha):
    weights = [
        [Decimal(float(w)).exp() if w > -np.inf else Decimal(0) for w in m.log_weight]
        for m in (source, target)
    ]
    total = [sum(w) for w in weights]
    # Masses that differ by rounding alone are meant to be equal.
    if abs(total[0] / total[1] - 1) < Decimal(32 * float(jnp.finfo(source.log_weight.dtype).eps)):
        weights[1] = [w * total[0] / total[1] for w in weights[1]]
    ends = []
    for measure, weight in zip((source, target), weights, strict=True):
        kept = [(x, w) for x, w in zip(np.asarray(measure.position), weight, strict=True) if w > 0]
        ends += [[x for x, _ in kept], [w for _, w in kept]]
    return exact_reference.bounds(KINDS[name][1], *ends, alpha)


def _assert_sound(name, source, target, alpha, tolerance=1e-4):
    result = _solver(name)(source, target, alpha)
    low, high = _exact(name, source, target, float(alpha))
    value, lower = result.value, result.lower_bound
    if name == "spherical_wfr":
        # Back to the plain distance between probability measures, by its formula.
        flat = lambda d: 8 * alpha * np.sin(np.sqrt(d / (8 * alpha))) ** 2  # noqa: E731
        value, lower = flat(np.float64(value)) * (1 + 1e-9), flat(np.float64(lower)) * (1 - 1e-9)
    assert Decimal(float(lower)) <= high
    assert Decimal(float(value)) >= low
    assert result.converged == (result.gap <= tolerance * result.value)
    assert result.converged


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_and_close_at_every_scale(seed):
    random = np.random.default_rng(seed)
    for _ in range(25):
        _assert_sound("wfr", *_draw(random, "wfr"))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_bounds_of_every_kind_hold_at_every_scale(name):
    random = np.random.default_rng(100)
    for _ in range(400):
        _assert_sound(name, *_draw(random, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wfr", "wasserstein"])
def test_bounds_hold_in_single_precision(name):
    random = np.random.default_rng(200)
    solve = jax.jit(KINDS[name][0])
    for _ in range(50):
        source, target, alpha = _draw(random, name)
        source, target = (
            m._replace(position=m.position / jnp.max(abs(m.position))) for m in (source, target)
        )
        source, target = single_precision((source, target))
        alpha = np.float32(np.clip(alpha, 1e-6, 1e12) if np.isfinite(alpha) else np.inf)
        result = solve(source, target, alpha)
        low, high = _exact(name, source, target, float(alpha))
        assert Decimal(float(result.lower_bound)) <= high
        assert Decimal(float(result.value)) >= low
        assert result.converged


@pytest.mark.parametrize("exponent", [2, 6, 8, 10, 16, 30])
def test_large_alpha_tends_to_the_balanced_value(exponent):
    random = np.random.default_rng(0)
    x, y = (np.pad(random.normal(size=(SIZE, 2)), ((0, 0), (0, DIM - 2))) for _ in range(2))
    source, target, alpha = particles(x), particles(y), 10.0**exponent
    result = _solver("wfr")(source, target, np.float64(alpha))
    balanced = ot.emd2([], [], 0.5 * ot.dist(x, y))
    assert result.converged
    assert result.lower_bound <= balanced
    # d² differs from the balanced value by a share of the order of 1/alpha.
    assert result.value >= balanced * (1 - 10 / alpha - 1e-12)
    heavier = target._replace(log_weight=target.log_weight + np.log(1.001))
    unequal = _solver("wfr")(source, heavier, np.float64(alpha))
    assert unequal.converged
    growth = 2 * alpha * (np.sqrt(1.001) - 1) ** 2
    np.testing.assert_allclose(unequal.value, np.sqrt(1.001) * result.value + growth, rtol=2e-4)


def test_large_alpha_in_single_precision():
    # Masses that differ by rounding to single precision are equal, whatever alpha makes of it.
    random = np.random.default_rng(0)
    x, y = random.normal(size=(7, 2)), random.normal(size=(6, 2))
    weight = random.uniform(0.5, 1.0, 7)
    pair = single_precision((particles(x, weight / weight.sum()), particles(y)))
    balanced = ot.emd2(weight / weight.sum(), [], 0.5 * ot.dist(x, y))
    solve = jax.jit(static.wfr)
    for alpha in (1e9, 1e15, 1e30):
        result = solve(*pair, np.float32(alpha))
        assert result.converged
        assert result.lower_bound <= result.value
        np.testing.assert_allclose(result.value, balanced, rtol=2e-4)


def _tied(name, random, size=60):
    poisson = lambda rate: random.poisson(rate, (size, 2)).astype(float)  # noqa: E731
    if name == "categories":
        return tuple(
            np.eye(4)[random.choice(4, size, p=p)] for p in ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4])
        )
    if name == "binary":
        return tuple((random.random((size, 6)) < p).astype(float) for p in (0.5, 0.7))
    if name == "counts":
        return poisson(3), poisson(4)
    if name == "line":
        return tuple(np.round(3 * random.normal(size=(size, 1)) + shift) for shift in (0, 1))
    pools = random.normal(size=(15, 2)), random.normal(size=(15, 2)) + 1
    return tuple(pool[random.integers(0, 15, size)] for pool in pools)


TIES = ["categories", "binary", "counts", "bootstrap", "line"]


@pytest.mark.parametrize("case", TIES)
def test_coincident_particles_are_no_trouble(case):
    random = np.random.default_rng(0)
    x, y = (np.pad(z, ((0, 0), (0, 6 - z.shape[1]))) for z in _tied(case, random))
    source, target = particles(x), particles(y)
    for name, cost in (("wasserstein", 0.5 * ot.dist(x, y)), ("wasserstein_1", ot.dist(x, y, "euclidean"))):
        result = _solver(name)(source, target, np.inf)
        exact = ot.emd2([], [], cost)
        assert result.converged
        assert result.lower_bound <= exact * (1 + 1e-12)
        assert result.value >= exact * (1 - 1e-12)
        rows, columns = result.plan.marginals(*cost.shape)
        np.testing.assert_allclose(rows, source.weight, rtol=1e-9)
        np.testing.assert_allclose(columns, target.weight, rtol=1e-9)
        spent = np.sum(result.plan.mass * cost[result.plan.row, result.plan.column])
        np.testing.assert_allclose(spent, result.value, rtol=1e-9)
    # Every point once, with the number of particles there, is the same measure.
    unique, count = zip(*(np.unique(z, axis=0, return_counts=True) for z in (x, y)), strict=True)
    for alpha in (0.3, 10.0):
        result = _solver("wfr")(source, target, np.float64(alpha))
        merged = [np.pad(u, ((0, len(x) - len(u)), (0, 0))) for u in unique]
        weights = [np.pad(c, (0, len(x) - len(c))) / len(x) for c in count]
        once = _solver("wfr")(*map(particles, merged, weights), np.float64(alpha))
        assert result.converged
        assert once.converged
        assert result.lower_bound <= once.value
        assert once.lower_bound <= result.value
        diracs = static.semi_coupling(result, source, target, alpha)
        np.testing.assert_allclose(static.coupling_cost(diracs, alpha), result.value, rtol=1e-9)


def test_single_precision_closes_with_ties_uneven_weights_and_outliers():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 2)), random.normal(size=(60, 2))
    solve = jax.jit(static.wasserstein)

    def assert_right(x, y, w, v):
        result = solve(*single_precision((particles(x, w), particles(y, v))))
        assert result.converged
        np.testing.assert_allclose(result.value, ot.emd2(w, v, 0.5 * ot.dist(x, y)), rtol=2e-4)

    uneven = [w / w.sum() for w in 10.0 ** random.uniform(-30, 0, (2, 60))]
    equal = np.full(60, 1 / 60)
    assert_right(x, y, *uneven)
    light = np.append(np.full(59, (1 - 1e-6) / 59), 1e-6)
    assert_right(np.vstack([x[:-1], [[1e4, 0.0]]]), y, light, equal)
    assert_right(np.round(x), np.round(y), equal, equal)


@pytest.mark.parametrize("extent", [7.5e-221, 1e-160, 1e120, 1e200])
@pytest.mark.parametrize("alpha", [1e-30, 1.0, 1e30])
def test_growth_does_not_vanish_beside_extents_whose_squares_are_no_floats(extent, alpha):
    # Mass 5 at the origin, and mass 1 nowhere near it, or all but there.
    source = particles(np.zeros((SIZE, DIM)), np.full(SIZE, 5 / SIZE))
    target = particles(np.full((SIZE, DIM), extent), [1.0, 0.0, 0.0])
    result = _solver("wfr")(source, target, np.float64(alpha))
    expected = 2 * alpha * ((np.sqrt(5) - 1) ** 2 if extent < 1 else 6)
    assert result.converged
    np.testing.assert_allclose([result.lower_bound, result.value], expected, rtol=1e-12)


@pytest.mark.parametrize("nowhere", [np.nan, np.inf])
def test_padding_counts_for_nothing_wherever_it_is(nowhere):
    random = np.random.default_rng(2)
    source, target = (particles(random.normal(size=(SIZE, DIM)) / 5) for _ in range(2))
    hidden = [m._replace(log_weight=m.log_weight.at[1].set(-jnp.inf)) for m in (source, target)]
    lost = [m._replace(position=m.position.at[1].set(nowhere)) for m in hidden]
    for name in ("wfr", "wasserstein"):
        expected, found = _solver(name)(*hidden, 1.0), _solver(name)(*lost, 1.0)
        assert found.converged
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
    gradient = jax.jit(jax.grad(lambda pair: static.wfr(*pair, 1.0).value))(tuple(lost))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(gradient[0].position[1], 0.0)


def test_equal_measures_in_any_order_are_at_distance_zero():
    measure = particles(np.random.default_rng(3).normal(size=(SIZE, DIM)), [1.0, 2.0, 3.0])
    other = Particles(measure.position[::-1], measure.log_weight[::-1] + np.log(4.0))
    for name in ("wasserstein", "wasserstein_1", "spherical_wfr"):
        result = _solver(name)(
            measure, other.normalise()._replace(log_weight=other.log_weight - np.log(4.0)), 2.0
        )
        assert result.converged
        assert result.value == result.lower_bound == 0
    result = _solver("wfr")(measure, other, 2.0)
    assert result.converged
    # From mass 6 to mass 24: 2 alpha (sqrt 24 - sqrt 6)².
    np.testing.assert_allclose(result.value, 24.0, rtol=1e-12)


# --- derivatives ---


def _value(name, arguments):
    position, weight, other, other_weight, alpha = arguments
    return KINDS_FINE[name](particles(position, weight), particles(other, other_weight), alpha).value


KINDS_FINE = {
    "wfr": partial(static.wfr, tolerance=1e-9),
    "spherical_wfr": partial(static.spherical_wfr, tolerance=1e-9),
    "gaussian_hellinger": partial(static.gaussian_hellinger, tolerance=1e-9),
    "wasserstein": lambda s, t, alpha: static.wasserstein(s.normalise(), t.normalise(), tolerance=1e-9),
}


@pytest.mark.parametrize(
    "name",
    [
        "wfr",
        "wasserstein",
        *map(partial(pytest.param, marks=pytest.mark.slow), ["spherical_wfr", "gaussian_hellinger"]),
    ],
)
def test_second_derivatives_agree_with_differences_of_first_ones(name):
    random = np.random.default_rng(0)
    point = (
        random.normal(size=(6, 2)),
        random.uniform(0.3, 1.5, 6),
        random.normal(size=(5, 2)) + 0.5,
        random.uniform(0.3, 1.5, 5),
        np.asarray(0.8),
    )
    point = jax.tree.map(jnp.asarray, point)
    direction = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), point)
    if name == "wasserstein":
        direction = (*direction[:-1], jnp.zeros(()))
    gradient = jax.grad(partial(_value, name))
    both = jax.jit(lambda p, d: jax.jvp(gradient, (p,), (d,)))
    _, found = both(point, direction)
    step = 1e-5
    there, back = (
        both(jax.tree.map(lambda a, b, h=h: a + h * b, point, direction), direction)[0] for h in (step, -step)
    )
    for leaf, ahead, behind in zip(*map(jax.tree.leaves, (found, there, back)), strict=True):
        expected = (np.asarray(ahead) - np.asarray(behind)) / (2 * step)
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-4 * np.abs(expected).max() + 1e-12)


def test_potentials_and_plan_respond_to_the_measures():
    random = np.random.default_rng(1)
    x, y = jnp.asarray(random.normal(size=(4, 2))), jnp.asarray(random.normal(size=(3, 2)))
    direction = jnp.asarray(random.normal(size=x.shape))

    @jax.jit
    def solved(x):
        result = static.wfr(particles(x), particles(y), 0.8, tolerance=1e-9)
        return result.potentials, result.plan.dense(4, 3)

    _, found = jax.jvp(solved, (x,), (direction,))
    step = 1e-5
    for leaf, ahead, behind in zip(
        *map(jax.tree.leaves, (found, solved(x + step * direction), solved(x - step * direction))),
        strict=True,
    ):
        expected = (np.asarray(ahead) - np.asarray(behind)) / (2 * step)
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_second_derivatives_that_would_need_all_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(static.solver, "_DENSE_PAIRS", 1)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 2)))
    value = lambda x: static.wfr(particles(x), particles(x + 1.0), 0.8).value  # noqa: E731
    assert jax.eval_shape(jax.grad(value), x).shape == x.shape
    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.eval_shape(jax.hessian(value), x)


def test_a_weight_of_zero_has_a_derivative():
    random = np.random.default_rng(3)
    x, y = random.normal(size=(5, 2)), particles(random.normal(size=(4, 2)))
    weight = jnp.array([1.0, 0.5, 0.0, 2.0, 0.0])
    value = lambda w: static.spherical_wfr(particles(x, w), y, 0.8, tolerance=1e-9).value  # noqa: E731
    both = jax.jit(jax.value_and_grad(value))
    before, gradient = both(weight)
    # The gap of 1e-9 must not matter to differences.
    step = 1e-4
    for i in range(5):
        once, twice = (both(weight.at[i].add(h))[0] - before for h in (step, 2 * step))
        np.testing.assert_allclose(gradient[i], (4 * once - twice) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("double", [True, False])
def test_strict_types_and_ranks_are_legal(double):
    with (
        jax.enable_x64(double),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        x, y, alpha = jnp.ones((5, 2)), jnp.ones((4, 2)), jnp.ones(())
        source, target = Particles(x, x[:, 0]), Particles(y, y[:, 0])

        def everything(source, target, alpha):
            result = static.wfr(source, target, alpha)
            spherical = static.spherical_wfr(source, target, alpha)
            diracs = static.semi_coupling(result, source, target, alpha)
            return (
                static.gaussian_hellinger(source, target, alpha),
                static.wasserstein_1(source, target),
                static.unmatched(result, source, target),
                static.end_potentials(result, alpha),
                static.potential(result, source, alpha, alpha, x),
                static.spherical_potential(spherical, source, target, alpha, alpha, x),
                static.wfr_geodesic(diracs, alpha, alpha),
                static.spherical_geodesic(diracs, alpha, alpha),
                static.dual_bound(source.log_weight, source, target, alpha),
                static.plan_cost(jnp.ones((5, 4)), source, target, alpha),
            )

        jax.eval_shape(everything, source, target, alpha)
        value = lambda *arguments: static.wfr(*arguments).value  # noqa: E731
        jax.eval_shape(jax.hessian(value, argnums=(0, 1, 2)), source, target, alpha)
