"""Convex networks: their jets against automatic differentiation, convexity, inverse maps."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference, random_like, single_precision, tree_dot

from wfr_flows.numerics import signs, stochastic_log_det
from wfr_flows.potentials import doubled, icnn, max_affine, pull_back, push_forward

NETWORKS = {
    "line": partial(icnn, 1, width=6, rank=2),
    "affine": partial(icnn, 2, width=6, depth=2, rank=0),
    "deep": partial(icnn, 3, width=6, depth=3, scale=2.0),
    "smooth maximum": partial(max_affine, 3, units=2, pieces=5),
    "one piece": partial(max_affine, 1, units=1, pieces=1),
}


class Trained(NamedTuple):
    """The functions are compiled once for all tests."""

    potential: object
    params: dict
    x: jax.Array
    jets: object
    push: object
    pull: object


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """A network with parameters that are nowhere zero, and points."""
    with jax.enable_x64(True):
        potential = NETWORKS[request.param]()
        params = potential.init(jax.random.key(0))
        params = moved(params, 0.3, random_like(jax.random.key(1), params))
        params = potential.project(params)
        x = jnp.asarray(1.5 * np.random.default_rng(2).normal(size=(7, params["shift"].size)))
        return Trained(
            potential,
            params,
            x,
            jax.jit(jax.vmap(potential.jet, (None, 0))),
            jax.jit(partial(push_forward, potential)),
            jax.jit(partial(pull_back, potential)),
        )


def moved(params, step, direction):
    return jax.tree.map(lambda a, e: jnp.asarray(np.asarray(a) + step * e), params, direction)


def test_jet_and_log_det_equal_automatic_differentiation(trained):
    potential, params, x, jets, push, _ = trained
    jet = jets(params, x)

    def slope_twice(x):
        slope = jax.grad(potential.value, 1)(params, x)
        return slope, slope

    hessian, gradient = jax.jit(jax.vmap(jax.jacfwd(slope_twice, has_aux=True)))(x)
    np.testing.assert_allclose(jet.gradient, gradient, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(jet.hessian, hessian, rtol=1e-12, atol=1e-12)
    y, log_det = push(params, x)
    np.testing.assert_allclose(y, gradient, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(hessian)[1], rtol=1e-10, atol=1e-10)


def test_hessian_is_positive_definite(trained):
    hessian = np.asarray(trained.jets(trained.params, 10 * trained.x).hessian)
    np.testing.assert_allclose(hessian, hessian.mT, rtol=1e-12)
    assert np.linalg.eigvalsh(hessian).min() > 0


def test_inverse_and_its_derivative(trained):
    potential, params, x, _, push, pull = trained
    y, _ = push(params, x)
    np.testing.assert_allclose(pull(params, y), x, atol=1e-8)

    def read(p, y):
        return jnp.sum(jnp.sin(pull_back(potential, p, y)))

    by_params, by_y = jax.jit(jax.grad(read, (0, 1)))(params, y)
    along = random_like(jax.random.key(3), (params, y))

    def after(h):
        return np.sum(np.sin(pull(*moved((params, y), h, along))))

    np.testing.assert_allclose(tree_dot((by_params, by_y), along), central_difference(after, 0.0), rtol=1e-6)


def test_single_precision(trained):
    _, params, x, _, push, pull = trained
    y, log_det = push(*single_precision((params, x)))
    assert y.dtype == log_det.dtype == jnp.float32
    for ours, exact in zip((y, log_det), push(params, x), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(pull(*single_precision((params, y))), x, atol=2e-3)


@pytest.mark.parametrize("potential", [icnn(4, width=5, depth=2), max_affine(4)])
def test_it_begins_as_the_identity(key, potential):
    x = jax.random.normal(key, (3, 4))
    y, log_det = jax.jit(partial(push_forward, potential))(potential.init(key), x)
    np.testing.assert_allclose(y, x, rtol=1e-14)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-14)


def test_projection_is_the_nearest_convex_network(key):
    potential = icnn(2, width=4, depth=2)
    params = random_like(key, jax.eval_shape(potential.init, key))
    projected = potential.project(params)
    for name in params:
        positive = name == "readout" or name.startswith("dense")
        expected = np.maximum(params[name], 0.0) if positive else params[name]
        np.testing.assert_array_equal(projected[name], expected)


def test_doubling_goes_twice_as_far(trained):
    potential, params, x, jets, push, _ = trained
    twice = doubled(potential)

    def both(x):
        return twice.jet(params, x), jax.value_and_grad(twice.value, 1)(params, x)

    jet, (value, slope) = jax.jit(jax.vmap(both))(x)
    slope, x = np.asarray(slope), np.asarray(x)
    np.testing.assert_allclose(jet.value, value, rtol=1e-12)
    np.testing.assert_allclose(jet.gradient, slope, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slope - x, 2 * (np.asarray(push(params, x)[0]) - x), rtol=1e-10, atol=1e-12)
    hessian = 2 * np.asarray(jets(params, x).hessian) - np.eye(x.shape[1])
    np.testing.assert_allclose(jet.hessian, hessian, rtol=1e-12)


def test_sharper_units_bend_at_the_same_places(key):
    blunt, sharp = (
        {name: np.asarray(leaf) for name, leaf in icnn(1, width=5, sharpness=sharpness).init(key).items()}
        for sharpness in (1.0, 4.0)
    )
    places = blunt["bias_0"] / blunt["linear_0"][:, 0], sharp["bias_0"] / sharp["linear_0"][:, 0]
    np.testing.assert_allclose(*places, rtol=1e-12)
    np.testing.assert_allclose(sharp["linear_0"], 4 * blunt["linear_0"], rtol=1e-12)


def test_all_of_it_in_128_dimensions(key):
    potential = icnn(128, width=4)
    start = potential.init(key)
    params = moved(start, 0.01, random_like(key, start))
    params = potential.project(params | {"readout": jnp.full(4, 0.5)})
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 128)))
    hessian = jax.jit(jax.hessian(potential.value, 1))(params, x[0])
    _, log_det = jax.jit(partial(push_forward, potential))(params, x)
    np.testing.assert_allclose(log_det[0], np.linalg.slogdet(hessian)[1], rtol=1e-10)

    def product(v):
        return jax.jvp(lambda y: potential.jet(params, y).gradient, (x[0],), (v,))[1]

    estimate = jax.jit(lambda probes: stochastic_log_det(product, probes, num_steps=16))(signs(key, 64, 128))
    np.testing.assert_allclose(estimate, log_det[0], atol=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 1, "width": 0}, "width is 0"),
        ({"dim": 1, "depth": 0}, "depth is 0"),
        ({"dim": 1, "rank": -1}, "rank is -1"),
        ({"dim": 1, "scale": 0.0}, "scale is 0"),
        ({"dim": 1, "sharpness": -1.0}, "sharpness is -1"),
        ({"dim": 1, "strong_convexity": 0.0}, "strong_convexity is 0"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        icnn(**options)


@pytest.mark.parametrize("name", ["dim", "units", "pieces"])
def test_a_maximum_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        max_affine(**({"dim": 1} | {name: 0}))


def test_a_sharp_maximum_takes_cells_to_points():
    places = np.array([[4.0, 0.0], [-4.0, 1.0], [0.0, -4.0]])
    potential = max_affine(2, units=1, pieces=3)
    params = potential.init(jax.random.key(0)) | {
        "slope": places[None],
        "bias": -0.5 * np.sum(places**2, axis=1)[None],
        "readout": jnp.ones(1),
        "root": jnp.zeros((2, 2)),
    }
    x = 6 * np.random.default_rng(1).normal(size=(50, 2))
    nearest = places[np.argmin(np.sum((x[:, None] - places) ** 2, axis=-1), axis=1)]
    log_odds = np.sort(x @ places.T + params["bias"], axis=1)
    inside = log_odds[:, -1] - log_odds[:, -2] > 20
    assert inside.sum() > 20
    y, _ = jax.jit(partial(push_forward, potential))(params, x)
    np.testing.assert_allclose(np.asarray(y)[inside], nearest[inside], atol=1e-4)
