"""What every certified distance promises to whoever transforms it."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional_difference, single_precision, tree_dot
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from wfr_flows.measures import Particles, particles
from wfr_flows.static import gaussian_hellinger, solver, spherical_wfr, wfr

SOLVERS = {"wfr": wfr, "spherical_wfr": spherical_wfr, "gaussian_hellinger": gaussian_hellinger}
# Not a number of Python, whose weak type would make each program one of its own.
ALPHA = np.float64(0.8)
_traces = Counter()


def _counted(name, *arguments):
    _traces[name, arguments[0].position.shape, arguments[1].position.shape] += 1
    return SOLVERS[name](*arguments)


# Shared by all tests: compiling takes longer than everything else.
_jitted = {name: jax.jit(partial(_counted, name)) for name in SOLVERS}
each_solver = pytest.mark.parametrize("name", SOLVERS)
# What treats all solvers alike by construction: the others can wait.
each_solver_in_time = pytest.mark.parametrize(
    "name", ["wfr", *(pytest.param(name, marks=pytest.mark.slow) for name in SOLVERS if name != "wfr")]
)


def _pair(seed=0, sizes=(5, 4), dim=2, scale=1.0):
    random = np.random.default_rng(seed)
    return tuple(particles(scale * random.normal(size=(n, dim)), random.uniform(0.3, 1.5, n)) for n in sizes)


def _assert_meet(one, other):
    """Both intervals hold the one true value."""
    assert one.converged
    assert other.converged
    assert one.lower_bound <= other.value * (1 + 1e-9)
    assert other.lower_bound <= one.value * (1 + 1e-9)


@each_solver_in_time
def test_jit_and_vmap_agree_with_one_by_one(name):
    pairs = [_pair(i) for i in range(3)]
    # The first has only neighbours out of reach, and is done while the others go on by Newton's method.
    alphas = jnp.array([1e-4, 1.0, 30.0])
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    batched = jax.jit(jax.vmap(SOLVERS[name]))(*batch, alphas)
    for i, pair in enumerate(pairs):
        alone = _jitted[name](*pair, alphas[i])
        # Each of a batch stops when it alone would.
        assert batched.num_iterations[i] == alone.num_iterations
        np.testing.assert_allclose(batched.value[i], alone.value, rtol=1e-9)
        np.testing.assert_allclose(batched.lower_bound[i], alone.lower_bound, rtol=1e-9)


@each_solver
def test_forward_and_reverse_derivatives_agree_with_differences(name):
    def value(arguments):
        return SOLVERS[name](*arguments, tolerance=1e-9).value

    point = (*_pair(), jnp.asarray(ALPHA))
    random = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), point)

    @jax.jit
    def both(p):
        # One forward derivative and its transpose, so that the program holds one solver.
        found, forward = jax.linearize(value, p)
        return found, forward(direction), jax.linear_transpose(forward, p)(jnp.ones_like(found))[0]

    _, forward, gradient = both(point)
    np.testing.assert_allclose(tree_dot(gradient, direction), forward, rtol=1e-9)
    # The step outweighs the gap, which the difference carries.
    expected = directional_difference(lambda p: both(p)[0], point, direction, step=1e-3)
    np.testing.assert_allclose(forward, expected, rtol=1e-4)


@each_solver_in_time
def test_single_precision_is_kept(name):
    pair = tuple(measure.normalise() for measure in _pair())
    rough = jax.jit(partial(SOLVERS[name], tolerance=1e-3))
    for alpha in (1e-2, ALPHA, 1e4, np.inf):
        result = rough(*single_precision(pair), np.float32(alpha))
        floats = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype(jnp.float32)}
        assert result.converged
        expected = _jitted[name](*pair, np.float64(alpha)).value
        np.testing.assert_allclose(result.value, expected, rtol=1.1e-3)


@each_solver_in_time
@pytest.mark.parametrize(("sizes", "dim"), [((1, 1), 1), ((3, 4), 40)])
def test_every_size_is_legal_and_traced_once(name, sizes, dim):
    for seed, alpha in ((0, ALPHA), (1, 2.0), (2, np.inf)):
        pair = _pair(seed, sizes=sizes, dim=dim, scale=dim**-0.5)
        result = _jitted[name](*pair, np.float64(alpha))
        assert _traces[name, pair[0].position.shape, pair[1].position.shape] == 1
        if np.isfinite(alpha):
            assert result.converged
            assert result.gap <= 1e-4 * result.value
            assert result.value > 0


@pytest.mark.parametrize(
    ("name", "dense_pairs"),
    [
        ("wfr", 1 << 23),
        pytest.param("spherical_wfr", 1 << 23, marks=pytest.mark.slow),
        pytest.param("gaussian_hellinger", 1 << 23, marks=pytest.mark.slow),
        pytest.param("wfr", 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sharded_over_devices_it_agrees_with_one_device(name, dense_pairs, monkeypatch):
    devices = jax.devices()
    if len(devices) < 8:
        pytest.skip("needs eight devices")
    monkeypatch.setattr(solver, "_DENSE_PAIRS", dense_pairs)
    mesh = jax.make_mesh((8,), ("particles",), axis_types=(AxisType.Auto,))
    pair = _pair(sizes=(32, 24))
    split = jax.device_put(pair, NamedSharding(mesh, PartitionSpec("particles")))
    # A function of its own, so that each path is traced anew.
    solve = jax.jit(lambda *arguments: SOLVERS[name](*arguments))  # noqa: PLW0108
    alone, together = solve(*pair, ALPHA), solve(*split, ALPHA)
    _assert_meet(alone, together)
    np.testing.assert_allclose(together.value, alone.value, rtol=1e-4)


@each_solver
def test_mistakes_are_refused(name):
    solve = SOLVERS[name]
    source, target = _pair()
    wrong = {
        "source has positions of shape": (Particles(jnp.zeros((0, 2)), jnp.zeros(0)), target),
        "target has positions of shape": (source, Particles(jnp.zeros(3), jnp.zeros(3))),
        "target has log-weights of shape": (source, target._replace(log_weight=jnp.zeros(7))),
        "dimension": (source, particles([0.0, 1.0])),
        "source has no mass": (source._replace(log_weight=jnp.full(5, -jnp.inf)), target),
        "target has entries": (source, target._replace(position=target.position.at[1].set(jnp.nan))),
    }
    for message, pair in wrong.items():
        with pytest.raises(ValueError, match=message):
            solve(*pair, ALPHA)
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha"):
            solve(source, target, alpha)
    with pytest.raises(ValueError, match="alpha has shape"):
        solve(source, target, jnp.ones(2))
    for tolerance in (0.0, -1e-3, float("nan")):
        with pytest.raises(ValueError, match="tolerance"):
            solve(source, target, ALPHA, tolerance=tolerance)
    with pytest.raises(ValueError, match="tolerance is traced"):
        jax.jit(lambda tolerance: solve(source, target, ALPHA, tolerance=tolerance))(1e-3)


@each_solver
def test_what_is_not_a_number_is_never_called_converged(name):
    assert not _jitted[name](*_pair(), np.float64(-1.0)).converged


@each_solver_in_time
def test_arrays_of_numpy_and_mixed_precisions_are_taken(name):
    source, target = _pair()
    plain = jax.tree.map(np.asarray, source), single_precision(target)
    value = jax.jit(SOLVERS[name])(*plain, ALPHA).value
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, _jitted[name](source, target, ALPHA).value, rtol=2e-4)
