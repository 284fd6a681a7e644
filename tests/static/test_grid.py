from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import convergence_orders, single_precision

from wfr_flows.measures import particles
from wfr_flows.static import semi_coupling, spherical_from_plain, spherical_geodesic, wfr, wfr_geodesic
from wfr_flows.static.grid import GridGeodesic, benamou_brenier

ALPHA = 0.05
WIDTH = 0.08
COARSE, FINE = (16, 8), (32, 16)


@partial(jax.jit, static_argnames=("spherical", "num_times"))
def _compiled(source, target, spacing, alpha, max_iterations, spherical, num_times):
    options = {"spherical": spherical, "num_times": num_times, "max_iterations": max_iterations}
    return benamou_brenier(source, target, spacing, alpha, tolerance=1e-5, **options)


def _solve(source, target, spacing, alpha, *, spherical=False, num_times=COARSE[1], max_iterations=10_000):
    return _compiled(source, target, spacing, alpha, max_iterations, spherical, num_times)


@jax.jit
def _static_both(source, target, alpha):
    result = wfr(source, target, alpha, tolerance=2e-4)
    diracs = semi_coupling(result, source, target, alpha)
    plain = result.value, wfr_geodesic(diracs, 0.5, alpha)
    return plain, (spherical_from_plain(result.value, alpha), spherical_geodesic(diracs, 0.5, alpha))


def _static(source, target, alpha, spherical=False):
    """The static distance, and its geodesic halfway."""
    if spherical:
        source, target = source.normalise(), target.normalise()
    return _static_both(source, target, alpha)[spherical]


def _centres(shape, spacing):
    axes = [(np.arange(n) + 0.5) * h for n, h in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _bump(position, centre, mass=1.0, width=WIDTH):
    density = np.exp(-0.5 * np.sum((position - np.asarray(centre)) ** 2, axis=-1) / width**2)
    return mass * density / density.sum()


def _line(size, centre, mass=1.0):
    """Masses of a Gaussian on ``size`` cells of the unit interval."""
    return _bump(_centres((size,), (1 / size,)), centre, mass)


def _cloud(mass, spacing):
    return particles(_centres(mass.shape, spacing).reshape(-1, mass.ndim), mass.ravel())


def _moments(position, weight):
    """Mass, mean and variance per axis."""
    position, weight = np.asarray(position).reshape(weight.size, -1), np.asarray(weight).ravel()
    mass = weight.sum()
    mean = weight @ position / mass
    return mass, mean, weight @ (position - mean) ** 2 / mass


def _excess(path):
    """``∂tρ + ∇·m - ζ`` from the fields of the result alone."""
    divergence = sum(np.diff(flux, axis=i) for i, flux in enumerate(path.flux, start=1))
    return len(path.growth) * np.diff(path.density, axis=0) + divergence - path.growth


class _Case:
    """A problem on the unit interval, solved on two grids and by the static solver on the same cells."""

    def __init__(self, centres, masses, alpha, spherical=False):
        self.ends, self.paths, self.values = [], [], []
        for size, num_times in (COARSE, FINE):
            ends = [_line(size, c, m) for c, m in zip(centres, masses, strict=True)]
            self.ends.append(ends)
            self.paths.append(_solve(*ends, 1 / size, alpha, spherical=spherical, num_times=num_times))
            clouds = [_cloud(mass, (1 / size,)) for mass in ends]
            value, self.middle = _static(*clouds, alpha, spherical)
            self.values.append(value)


CASES = {
    "wasserstein": ((0.35, 0.6), (1.0, 1.0), np.inf),
    "growth": ((0.5, 0.5), (1.0, 2.0), ALPHA),
    "plain": ((0.35, 0.6), (1.0, 1.6), ALPHA),
    "spherical": ((0.35, 0.65), (1.0, 1.6), ALPHA, True),
}


@pytest.fixture(scope="module")
def cases():
    with jax.enable_x64(True):
        return {name: _Case(*arguments) for name, arguments in CASES.items()}


@pytest.fixture(scope="module")
def plane():
    spacing = (1 / 12, 0.1)
    position = _centres((12, 10), spacing)
    source = _bump(position, (0.35, 0.45), width=0.13)
    target = _bump(position, (0.6, 0.55), mass=1.5, width=0.13)
    with jax.enable_x64(True):
        return source, target, spacing, _solve(source, target, spacing, 4 * ALPHA)


# --- closed forms ---


def test_a_translated_bump_costs_half_its_squared_shift(cases):
    errors = [abs(path.value / (0.5 * 0.25**2) - 1) for path in cases["wasserstein"].paths]
    assert errors[0] < 5e-3
    assert errors[1] < 1e-3


def test_a_translated_bump_moves_at_constant_speed_and_keeps_its_width(cases):
    path = cases["wasserstein"].paths[1]
    position = _centres(FINE[:1], (1 / FINE[0],))
    for time in (0.25, 0.5, 0.75):
        mass, mean, variance = _moments(position, np.asarray(path.density[int(time * FINE[1])]))
        np.testing.assert_allclose(mass, 1.0, rtol=1e-12)
        np.testing.assert_allclose(mean, 0.35 + 0.25 * time, atol=1e-3)
        np.testing.assert_allclose(variance, WIDTH**2, rtol=0.05)
    np.testing.assert_array_equal(path.growth, 0.0)


def test_growth_in_place_is_hellinger(cases):
    case = cases["growth"]
    exact = 2 * ALPHA * (np.sqrt(2.0) - 1) ** 2
    errors = [abs(path.value / exact - 1) for path in case.paths]
    assert errors[0] < 2e-3
    assert errors[1] < 5e-4
    source, target = case.ends[1]
    for level, time in ((4, 0.25), (8, 0.5), (12, 0.75)):
        expected = ((1 - time) * np.sqrt(source) + time * np.sqrt(target)) ** 2
        np.testing.assert_allclose(case.paths[1].density[level], expected, atol=2e-3 * expected.max())


# --- the static solver ---


@pytest.mark.parametrize("name", ["plain", "spherical"])
def test_the_static_value_is_the_limit_under_refinement(cases, name):
    case = cases[name]
    errors = [float(abs(p.value / v - 1)) for p, v in zip(case.paths, case.values, strict=True)]
    assert errors[0] < 0.04
    assert errors[1] < 0.01
    # 1.8 measured: the scheme is of second order, and so is replacing cells by points.
    assert convergence_orders(errors)[0] > 1.5


@pytest.mark.parametrize("name", ["wasserstein", "plain", "spherical"])
def test_the_static_geodesic_is_the_path(cases, name):
    middle, path = cases[name].middle, cases[name].paths[1]
    expected = _moments(middle.position, np.asarray(middle.weight))
    found = _moments(_centres(FINE[:1], (1 / FINE[0],)), np.asarray(path.density[FINE[1] // 2]))
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-3)
    np.testing.assert_allclose(found[1], expected[1], atol=3e-3)
    np.testing.assert_allclose(found[2], expected[2], rtol=0.08)


def test_the_mass_of_a_plain_path_is_a_parabola(cases):
    path = cases["plain"].paths[1]
    time = np.linspace(0, 1, FINE[1] + 1)
    expected = (1 - time) + 1.6 * time - time * (1 - time) * float(path.value) / (2 * ALPHA)
    np.testing.assert_allclose(path.density.sum(axis=1), expected, rtol=2e-3)


def test_the_mass_of_a_spherical_path_is_one(cases):
    path = cases["spherical"].paths[1]
    np.testing.assert_allclose(path.density.sum(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(path.growth.sum(axis=1), 0.0, atol=1e-13)
    assert jnp.abs(path.growth).max() > 0.01


def test_in_the_plane(plane):
    source, target, spacing, path = plane
    value, middle = _static(_cloud(source, spacing), _cloud(target, spacing), 4 * ALPHA)
    np.testing.assert_allclose(path.value, value, rtol=0.03)
    assert [flux.shape for flux in path.flux] == [(8, 13, 10), (8, 12, 11)]
    expected = _moments(middle.position, np.asarray(middle.weight))
    found = _moments(_centres(source.shape, spacing), np.asarray(path.density[4]))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-2)
    np.testing.assert_allclose(found[1], expected[1], atol=5e-3)
    np.testing.assert_allclose(found[2], expected[2], rtol=0.1)


# --- the result ---


def test_every_path_is_feasible(cases, plane):
    paths = [path for case in cases.values() for path in case.paths] + [plane[-1]]
    for path in paths:
        assert path.converged
        assert path.residual <= 1e-5
        assert path.num_iterations < 4000
        assert path.density.min() >= 0
        assert np.abs(_excess(path)).max() < 1e-13
        assert path.continuity_residual < 1e-13
        for axis, flux in enumerate(path.flux, start=1):
            np.testing.assert_array_equal(np.take(flux, [0, -1], axis=axis), 0.0)


def test_every_path_joins_the_source_to_the_target(cases, plane):
    for name in ("wasserstein", "growth", "plain"):
        for (source, target), path in zip(cases[name].ends, cases[name].paths, strict=True):
            np.testing.assert_allclose(path.density[0], source, rtol=1e-14)
            np.testing.assert_allclose(path.density[-1], target, rtol=1e-14)
    source, target, _, path = plane
    np.testing.assert_allclose(path.density[0], source, rtol=1e-14)
    np.testing.assert_allclose(path.density[-1], target, rtol=1e-14)


def test_units_do_not_matter(cases):
    (source, target), path = cases["plain"].ends[0], cases["plain"].paths[0]
    other = _solve(1e5 * source, 1e5 * target, 1e3 / COARSE[0], 1e6 * ALPHA)
    np.testing.assert_allclose(other.value, 1e11 * path.value, rtol=1e-8)
    np.testing.assert_allclose(other.density, 1e5 * path.density, rtol=1e-6, atol=1e-4)
    assert abs(int(other.num_iterations) - int(path.num_iterations)) <= 1


def test_equal_measures_are_at_distance_zero(cases):
    source = cases["plain"].ends[0][0]
    path = _solve(source, source, 1 / COARSE[0], ALPHA)
    assert path.converged
    np.testing.assert_allclose(path.value, 0.0, atol=1e-15)
    np.testing.assert_allclose(path.density, np.tile(source, (COARSE[1] + 1, 1)), rtol=1e-12, atol=1e-15)


def test_masses_as_narrow_as_a_cell(cases):
    # One cell to two others, empty elsewhere: nothing is resolved.
    cells = np.eye(COARSE[0])
    path = _solve(cells[8], 0.5 * (cells[3] + cells[13]), 1 / COARSE[0], np.inf)
    assert path.converged
    np.testing.assert_allclose(path.value, 0.5 * (5 / 16) ** 2, rtol=0.1)
    np.testing.assert_allclose(path.density.sum(axis=1), 1.0, rtol=1e-12)


def test_unequal_masses_cost_inf_without_growth(cases):
    source, target = cases["plain"].ends[0]
    path = _solve(source, target, 1 / COARSE[0], np.inf)
    assert path.value == jnp.inf
    assert not path.converged


def test_in_single_precision(cases):
    case, exact = cases["plain"], cases["plain"].paths[0]
    source, target = single_precision(tuple(map(jnp.asarray, case.ends[0])))
    with jax.enable_x64(False):
        path = _solve(source, target, 1 / COARSE[0], ALPHA)
    assert isinstance(path, GridGeodesic)
    assert path.value.dtype == path.density.dtype == jnp.float32
    assert path.converged
    assert path.continuity_residual < 1e-6
    np.testing.assert_allclose(path.value, exact.value, rtol=1e-4)
    np.testing.assert_allclose(path.density, exact.density, atol=1e-4)


def test_too_few_iterations_are_reported(cases):
    source, target = cases["plain"].ends[0]
    path = _solve(source, target, 1 / COARSE[0], ALPHA, max_iterations=3)
    assert path.num_iterations == 3
    assert not path.converged
    assert path.residual > 1e-4
    assert path.density.min() >= 0
    assert np.abs(_excess(path)).max() < 1e-13


# --- errors ---

GOOD = {"source": [0.5, 0.5], "target": [0.2, 0.8], "spacing": 0.5, "alpha": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": [-0.5, 1.5]}, "source has negative masses"),
        ({"target": [np.nan, 1.0]}, "target has NaN"),
        ({"target": [np.inf, 1.0]}, "target has NaN, infinite"),
        ({"source": ["a", "b"]}, "non-numeric"),
        ({"source": [0.0, 0.0]}, "source has mass zero"),
        ({"source": []}, "source has mass zero"),
        ({"source": [0.2, 0.3, 0.5]}, "give masses on one grid"),
        ({"source": 1.0, "target": 1.0}, "give masses on one grid"),
        ({"alpha": 0.0}, "alpha is 0.0; give a positive"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"spacing": 0.0}, "give positive, finite cell widths"),
        ({"spacing": np.inf}, "give positive, finite cell widths"),
        ({"spacing": (0.5, 0.5)}, "one per axis"),
        ({"target": [1.0, 1.0], "alpha": np.inf}, "normalise them"),
        ({"num_times": 1}, "num_times is 1"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as error:
        benamou_brenier(**{**GOOD, **change})
    assert "\n" not in str(error.value)
