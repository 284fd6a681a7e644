from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference, numerical_gradient, random_like, single_precision

from wfr_flows.potentials import Jet, from_function, quadratic, resnet


def _resnet(dim, **options):
    return lambda: (dim, resnet(dim, **options))


def _from_resnet(dim):
    net = resnet(dim, width=8)
    return dim, from_function(net.value, net.init)


# Width 8 puts d = 40 and 100 on the side of the Gram matrix, d <= 8 on the other.
POTENTIALS = {
    "resnet-1": _resnet(1, width=8),
    "resnet-2": _resnet(2, width=8),
    "resnet-5": _resnet(5, width=8),
    "resnet-40": _resnet(40, width=8),
    "resnet-100": _resnet(100, width=8),
    "resnet-width-1-rank-1": _resnet(3, width=1, rank=1),
    "quadratic-1": lambda: (1, quadratic(1)),
    "quadratic-4": lambda: (4, quadratic(4)),
    "from_function": lambda: _from_resnet(3),
}
every = pytest.mark.parametrize("name", POTENTIALS)
SMALL = ("resnet-2", "resnet-40", "quadratic-4", "from_function")
small = pytest.mark.parametrize("name", SMALL)


# Built and compiled once for all tests.
@cache
def _build(name):
    """Dimension, potential and parameters that are nowhere zero, as after some training."""
    dim, potential = POTENTIALS[name]()
    params = potential.init(jax.random.key(1))
    noise = random_like(jax.random.key(2), params)
    return dim, potential, jax.tree.map(lambda p, e: jnp.asarray(np.asarray(p) + 0.2 * e), params, noise)


@cache
def _jets(name):
    """``(params, t, x) -> jet`` at many points."""
    return jax.jit(jax.vmap(_build(name)[1].jet, (None, 0, 0)))


def _points(dim, num=4):
    random = np.random.default_rng(3)
    return jnp.asarray(random.uniform(size=num)), jnp.asarray(2 * random.normal(size=(num, dim)))


def _assert_same_jet(actual, expected, rtol):
    for field, a, b in zip(Jet._fields, actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(abs(b).max()), err_msg=field)


@every
def test_jet_equals_automatic_differentiation(name):
    dim, potential, params = _build(name)
    t, x = _points(dim)
    oracle = jax.jit(jax.vmap(from_function(potential.value).jet, (None, 0, 0)))
    actual, expected = _jets(name)(params, t, x), oracle(params, t, x)
    assert actual.gradient.shape == (4, dim)
    _assert_same_jet(actual, expected, 1e-10)


@small
def test_jet_matches_finite_differences_of_the_value(name):
    dim, potential, params = _build(name)
    t, x = (a[0] for a in _points(dim, 1))
    value = jax.jit(potential.value)
    jet = jax.jit(potential.jet)(params, t, x)
    gradient = numerical_gradient(lambda y: value(params, t, y), x, 1e-3)
    np.testing.assert_allclose(jet.gradient, gradient, rtol=1e-8, atol=1e-8)
    time_derivative = central_difference(lambda s: value(params, s, x), t)
    np.testing.assert_allclose(jet.time_derivative, time_derivative, rtol=1e-6, atol=1e-7)
    # The divergence of the gradient by differences.
    h = 1e-5 * jnp.eye(dim)
    moved = jax.jit(jax.vmap(potential.jet, (None, None, 0)))
    difference = (moved(params, t, x + h).gradient - moved(params, t, x - h).gradient) / 2e-5
    np.testing.assert_allclose(jet.laplacian, jnp.trace(difference), rtol=1e-6, atol=1e-7)


@small
def test_jet_in_single_precision(name):
    dim, _, params = _build(name)
    t, x = _points(dim)
    exact = _jets(name)(params, t, x)
    rough = _jets(name)(*single_precision((params, t, x)))
    assert {leaf.dtype for leaf in jax.tree.leaves(rough)} == {jnp.dtype(jnp.float32)}
    _assert_same_jet(rough, exact, 2e-5)


@pytest.mark.parametrize("name", ["resnet-2", "quadratic-4"])
def test_jit_and_vmap_agree_with_a_plain_call(name):
    dim, potential, params = _build(name)
    t, x = _points(dim, 2)
    # One plain call is enough: op by op, each compiles on its own.
    plain = potential.jet(params, t[0], x[0])
    batched = jax.jit(jax.vmap(potential.jet, (None, 0, 0)))(params, t, x)
    _assert_same_jet(jax.tree.map(lambda a: a[0], batched), plain, 1e-12)
    np.testing.assert_allclose(jax.jit(potential.value)(params, t[0], x[0]), plain.value, rtol=1e-12)


@pytest.mark.parametrize("name", ["resnet-2", "quadratic-4"])
def test_vmap_over_parameters(name):
    dim, potential = POTENTIALS[name]()
    t, x = (a[0] for a in _points(dim, 1))
    params = jax.jit(jax.vmap(potential.init))(jax.random.split(jax.random.key(0), 3))
    values = jax.jit(jax.vmap(potential.value, (0, None, None)))(params, t, x)
    assert values.shape == (3,)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", ["resnet-2", "quadratic-4"])
def test_gradients_of_every_part_of_the_jet_with_respect_to_parameters(name):
    dim, potential, params = _build(name)
    t, x = (a[0] for a in _points(dim, 1))
    oracle = from_function(potential.value)

    def mixture_of(jet):
        return lambda p: sum(jnp.sum(jnp.sin(part)) for part in jet(p, t, x))

    actual, expected = (jax.jit(jax.grad(mixture_of(p.jet)))(params) for p in (potential, oracle))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dim", [1, 2, 40])
def test_laplacian_gradient_of_the_resnet_equals_that_of_from_function(dim):
    potential = resnet(dim, width=8)
    params = potential.init(jax.random.key(4))
    t, x = (a[0] for a in _points(dim, 1))
    oracle = from_function(potential.value)
    actual, expected = (
        jax.jit(jax.grad(lambda p, jet=p.jet: jet(p, t, x).laplacian))(params) for p in (potential, oracle)
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_everything_is_finite_at_the_origin_with_zero_bias():
    # All pre-activations are then exactly 0, where |x| has no derivative.
    potential = resnet(2, width=8)
    params = dict(potential.init(jax.random.key(0)))
    params["opening_bias"] = jnp.zeros_like(params["opening_bias"])

    def value(s):
        return potential.value(params, s[2], s[:2])

    def laplacian(s):
        return potential.jet(params, s[2], s[:2]).laplacian

    origin = jnp.zeros(3)
    hessian = jax.jit(jax.hessian(value))(origin)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)
    np.testing.assert_allclose(jnp.trace(hessian[:2, :2]), jax.jit(laplacian)(origin), rtol=1e-12)
    # sigma'' is even, so a fourth derivative is the first that a wrong rule at 0 would spoil.
    assert np.isfinite(jax.jit(jax.hessian(laplacian))(origin)).all()
    slope = jax.jit(jax.grad(value))
    columns = [central_difference(lambda h, e=e: slope(h * e), 0.0) for e in np.eye(3)]
    np.testing.assert_allclose(hessian, np.stack(columns), atol=1e-9)


def test_large_arguments_do_not_overflow():
    potential = resnet(1, width=8)
    params = single_precision(potential.init(jax.random.key(0)))
    jet = potential.jet(params, jnp.float32(0.5), jnp.full(1, 1e4, jnp.float32))
    assert all(np.isfinite(part).all() for part in jet)


@every
def test_init_is_a_plain_dict_of_arrays(name):
    _, potential = POTENTIALS[name]()
    params = potential.init(jax.random.key(0))
    assert type(params) is dict
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(params))


def test_init_follows_the_default_float_type():
    with jax.enable_x64(False):
        params = resnet(2, width=4).init(jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_resnet_starts_as_the_paper_says():
    params = resnet(12, width=8, start=1.0).init(jax.random.key(0))
    assert params["factor"].shape == (10, 13)
    np.testing.assert_array_equal(params["readout"], 1.0)
    np.testing.assert_array_equal(params["slope"], 0.0)
    np.testing.assert_array_equal(params["constant"], 0.0)


def test_resnet_starts_small_where_asked():
    # The head, which is linear in them, in proportion; the features as they were.
    large, small = (resnet(3, width=8, start=start).init(jax.random.key(0)) for start in (1.0, 0.04))
    np.testing.assert_allclose(small["readout"], 0.04 * large["readout"], rtol=1e-12)
    np.testing.assert_allclose(small["factor"], 0.2 * large["factor"], rtol=1e-12)
    np.testing.assert_array_equal(small["hidden"], large["hidden"])
    with pytest.raises(ValueError, match="start"):
        resnet(3, start=0.0)


def test_resnet_value_is_the_formula_of_the_docstring():
    potential = resnet(2, width=3)
    params = random_like(jax.random.key(5), potential.init(jax.random.key(0)))
    x, t = np.array([0.3, -1.2]), 0.4
    p = {name: np.asarray(value) for name, value in params.items()}

    def sigma(v):
        return np.log(2 * np.cosh(v))

    s = np.append(x, t)
    u0 = sigma(p["opening"] @ s + p["opening_bias"])
    network = u0 + sigma(p["hidden"] @ u0 + p["hidden_bias"])
    expected = p["readout"] @ network + 0.5 * np.sum((p["factor"] @ s) ** 2) + p["slope"] @ s + p["constant"]
    np.testing.assert_allclose(potential.value(params, jnp.asarray(t), jnp.asarray(x)), expected, rtol=1e-13)


def test_quadratic_starts_as_zero_and_symmetrises():
    potential = quadratic(2)
    params = potential.init(jax.random.key(0))
    x, t = jnp.array([1.0, 2.0]), jnp.array(0.5)
    assert all((part == 0).all() for part in potential.jet(params, t, x))
    params |= {
        "curvature": jnp.array([[1.0, 4.0], [0.0, 3.0]]),
        "rate": jnp.array(2.0),
        "constant": jnp.array(7.0),
    }
    jet = potential.jet(params, t, x)
    np.testing.assert_allclose(jet.value, 0.5 * (1 + 8 + 12) + 7 + 1)
    np.testing.assert_allclose(jet.gradient, [5.0, 8.0])
    assert jet.laplacian == 4.0
    assert jet.time_derivative == 2.0


@pytest.mark.parametrize("dim", [0, -3])
@pytest.mark.parametrize("build", [resnet, quadratic])
def test_dimensions_below_one_are_refused(build, dim):
    with pytest.raises(ValueError, match="dim"):
        build(dim)


@pytest.mark.parametrize("option", ["width", "rank"])
def test_empty_layers_are_refused(option):
    with pytest.raises(ValueError, match=option):
        resnet(2, **{option: 0})
