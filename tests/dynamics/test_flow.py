from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import (
    convergence_orders,
    directional_difference,
    random_like,
    single_precision,
    tree_dot,
)

from wfr_flows.dynamics import Geometry, flow, time_grid
from wfr_flows.measures import Particles, particles
from wfr_flows.potentials import quadratic, resnet

NET = resnet(2, width=6, start=1.0)
# One number of nodes, so that one program serves most tests.
NUM_STEPS = 64


@partial(jax.jit, static_argnames="spherical")
def _run(params, measure, grid, alpha=1.0, spherical=True):
    return flow(NET, Geometry(alpha, spherical), params, measure, grid)


def _params(seed=0):
    return jax.jit(NET.init)(jax.random.key(seed))


def _measure(num=6):
    position = np.random.default_rng(0).normal(size=(num, 2))
    return particles(position, np.linspace(0.5, 2.0, num))


def test_flow_has_order_four():
    params, measure = _params(), _measure()

    def solve(num_steps):
        # Repeated nodes at the end keep the shape, so that one compilation serves all.
        grid = np.ones(65)
        grid[: num_steps + 1] = np.linspace(0, 1, num_steps + 1)
        return jax.tree.map(lambda a: a[-1], _run(params, measure, jnp.asarray(grid), 1.0, False)[1:])

    exact = solve(64)
    for field in range(3):
        errors = [abs(solve(n)[field] - exact[field]).max() for n in (8, 16, 32)]
        assert (convergence_orders(errors) > 3.6).all(), field


@pytest.mark.parametrize("spherical", [True, False])
def test_reverse_undoes_forward_in_single_precision(spherical):
    params, measure = single_precision((_params(), _measure()))
    forward = _run(params, measure, time_grid(32).astype(jnp.float32), 1.0, spherical)
    grid = time_grid(32, reverse=True).astype(jnp.float32)
    back = _run(params, forward.at(-1), grid, 1.0, spherical)
    assert back.position.dtype == back.log_weight.dtype == back.log_det.dtype == jnp.float32
    np.testing.assert_allclose(back.position[-1], measure.position, atol=1e-5)
    np.testing.assert_allclose(back.log_weight[-1], measure.log_weight, atol=1e-5)
    np.testing.assert_allclose(forward.log_det[-1] + back.log_det[-1], 0.0, atol=1e-5)


@partial(jax.jit, static_argnames="spherical")
def _quadratic_run(params, measure, alpha=jnp.inf, spherical=True):
    return flow(quadratic(2), Geometry(alpha, spherical), params, measure, time_grid(32))


def test_quadratic_flow_equals_the_matrix_exponential():
    curvature = np.array([[1.0, 0.4], [0.4, -0.6]])
    slope = np.array([0.3, -1.0])
    params = {"curvature": curvature, "slope": slope, "constant": 0.0, "rate": 0.0}
    params = jax.tree.map(jnp.asarray, params)
    measure = _measure()
    path = _quadratic_run(params, measure)
    rest = np.linalg.solve(curvature, slope)
    for k in (0, 7, 32):
        t = float(path.time[k])
        expected = (np.asarray(measure.position) + rest) @ scipy.linalg.expm(-curvature * t).T - rest
        np.testing.assert_allclose(path.position[k], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(path.log_det[k], -t * np.trace(curvature), atol=1e-12)


def test_a_constant_potential_grows_all_weights_alike():
    params = quadratic(2).init(jax.random.key(0)) | {"constant": jnp.array(3.0), "rate": jnp.array(2.0)}
    measure = _measure()
    plain = _quadratic_run(params, measure, alpha=2.0, spherical=False)
    # d log w/dt = -(3 + 2t)/2.
    expected = measure.log_weight - (3 * plain.time + plain.time**2)[:, None] / 2
    np.testing.assert_allclose(plain.log_weight, expected, rtol=1e-12)
    np.testing.assert_array_equal(plain.position[-1], measure.position)
    spherical = _quadratic_run(params, measure, alpha=2.0)
    np.testing.assert_allclose(spherical.log_weight, np.tile(measure.log_weight, (33, 1)), atol=1e-12)


@pytest.mark.parametrize("spherical", [True, False])
def test_the_wasserstein_geometry_keeps_weights(spherical):
    measure = _measure()
    path = _run(_params(), measure, time_grid(NUM_STEPS), jnp.inf, spherical)
    np.testing.assert_allclose(path.log_weight, np.tile(measure.log_weight, (NUM_STEPS + 1, 1)), atol=1e-14)
    assert abs(path.position[-1] - measure.position).max() > 0.1


def test_spherical_weights_keep_the_initial_mass_and_differ_from_plain_by_a_constant():
    measure = _measure()
    spherical, plain = (_run(_params(), measure, time_grid(NUM_STEPS), 0.5, s) for s in (True, False))
    np.testing.assert_allclose(jnp.exp(spherical.log_weight).sum(axis=1), measure.mass, rtol=1e-12)
    np.testing.assert_allclose(spherical.at(2).mass, measure.mass, rtol=1e-12)
    shift = spherical.log_weight - plain.log_weight
    np.testing.assert_allclose(shift - shift[:, :1], 0.0, atol=1e-12)
    assert abs(shift[-1, 0]) > 1e-3


def test_weight_zero_stays_zero():
    measure = particles(np.ones((3, 2)), [1.0, 0.0, 2.0])
    path = _run(_params(), measure, time_grid(NUM_STEPS))
    np.testing.assert_array_equal(path.log_weight[:, 1], -np.inf)
    assert np.isfinite(path.log_weight[:, 0]).all()


def test_without_log_det_nothing_else_changes():
    measure = _measure()
    lean = jax.jit(lambda p, m: flow(NET, Geometry(1.0), p, m, time_grid(NUM_STEPS), log_det=False))(
        _params(), measure
    )
    full = _run(_params(), measure, time_grid(NUM_STEPS))
    np.testing.assert_allclose(lean.position, full.position, rtol=1e-12)
    np.testing.assert_allclose(lean.log_weight, full.log_weight, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(lean.log_det, 0.0)


def test_log_det_is_that_of_the_jacobian_of_the_flow_map():
    params, measure, grid = _params(), _measure(), time_grid(NUM_STEPS)

    def end(x):
        return _run(params, Particles(x[None], jnp.zeros(1)), grid, 1.0, False).position[-1, 0]

    jacobian = jax.jit(jax.vmap(jax.jacfwd(end)))(measure.position)
    sign, log_det = np.linalg.slogdet(np.asarray(jacobian))
    assert (sign > 0).all()
    np.testing.assert_allclose(_run(params, measure, grid, 1.0, False).log_det[-1], log_det, atol=1e-6)


def test_density_changes_as_weights_and_volumes_do():
    # On a line of particles with weights rho0(x) dx, the density rho0 · w(1)/w(0) · exp(-log_det) at the
    # moved points, integrated over the moved points, must give the same means as the moved weights do.
    net = resnet(1, width=6, start=1.0)
    params = jax.jit(net.init)(jax.random.key(7))
    x = np.linspace(-9, 9, 801)
    rho = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    measure = particles(x, rho * (x[1] - x[0]))
    path = jax.jit(lambda p, m: flow(net, Geometry(2.0), p, m, time_grid(32)))(params, measure)
    z = np.asarray(path.position[-1, :, 0])
    density = rho * np.exp(np.asarray(path.log_weight[-1] - path.log_weight[0] - path.log_det[-1]))
    assert (np.diff(z) > 0).all()
    for test_function in (np.ones_like, np.sin, np.square):
        by_density = np.trapezoid(test_function(z) * density, z)
        by_weight = np.sum(np.exp(path.log_weight[-1]) * test_function(z))
        np.testing.assert_allclose(by_density, by_weight, rtol=1e-4, atol=1e-5)


def _loss(params, alpha, measure):
    path = flow(NET, Geometry(alpha), params, measure, time_grid(4))
    end = path.at(-1)
    return jnp.sum(end.weight * jnp.sum(end.position**2, axis=1)) - jnp.sum(end.weight * path.log_det[-1])


def test_gradients_match_finite_differences_in_every_argument():
    params, measure = _params(), _measure()
    arguments = (params, jnp.array(0.7), measure)
    differentiated = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1, 2)))
    _, gradient = differentiated(*arguments)
    for argnum in range(3):

        def along(value, argnum=argnum):
            return differentiated(*arguments[:argnum], value, *arguments[argnum + 1 :])[0]

        direction = random_like(jax.random.key(argnum), arguments[argnum])
        expected = directional_difference(along, arguments[argnum], direction)
        np.testing.assert_allclose(tree_dot(gradient[argnum], direction), expected, rtol=1e-6, atol=1e-8)


def test_forward_mode_agrees_with_reverse_and_hessian_vector_products_with_differences():
    params, measure, alpha = _params(), _measure(), 0.7
    direction = random_like(jax.random.key(3), params)
    gradient_of = jax.grad(_loss)

    @jax.jit
    def products(p):
        forward = jax.jvp(lambda q: _loss(q, alpha, measure), (p,), (direction,))[1]
        gradient, curved = jax.jvp(lambda q: gradient_of(q, alpha, measure), (p,), (direction,))
        return forward, gradient, curved

    forward, gradient, curved = products(params)
    np.testing.assert_allclose(forward, tree_dot(gradient, direction), rtol=1e-11)
    expected = directional_difference(lambda q: products(q)[1], params, direction)
    for a, b in zip(jax.tree.leaves(curved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_gradient_in_alpha_is_finite_far_into_the_wasserstein_limit():
    params = quadratic(2).init(jax.random.key(0)) | {"constant": jnp.array(3.0)}
    measure = _measure()

    def log_mass(alpha):
        path = flow(quadratic(2), Geometry(alpha, spherical=False), params, measure, time_grid(2))
        return jax.nn.logsumexp(path.log_weight[-1])

    # log M = log M0 - 3/alpha.
    slope = jax.jit(jax.grad(log_mass))
    np.testing.assert_allclose(slope(1e6), 3e-12, rtol=1e-9)
    assert slope(jnp.inf) == 0.0


def test_vmap_over_alpha_and_over_keys():
    measure, alphas = _measure(), jnp.array([0.3, 2.0, jnp.inf])
    params = jax.jit(jax.vmap(NET.init))(jax.random.split(jax.random.key(0), 3))
    paths = jax.jit(jax.vmap(_run, (0, None, None, 0)))(params, measure, time_grid(NUM_STEPS), alphas)
    for i, alpha in enumerate((0.3, 2.0, np.inf)):
        own = jax.tree.map(lambda p, i=i: jnp.asarray(np.asarray(p)[i]), params)
        alone = _run(own, measure, time_grid(NUM_STEPS), alpha)
        np.testing.assert_allclose(paths.position[i], alone.position, rtol=1e-11)
        np.testing.assert_allclose(paths.log_weight[i], alone.log_weight, rtol=1e-10, atol=1e-12)


def test_adaptive_solve_agrees_with_a_fine_grid():
    params, measure = _params(), _measure()
    fine = _run(params, measure, time_grid(NUM_STEPS))
    adaptive = jax.jit(
        lambda p, m: flow(NET, Geometry(1.0), p, m, jnp.array([0.0, 0.5, 1.0]), tolerance=1e-8)
    )(params, measure)
    for field in ("position", "log_weight", "log_det"):
        np.testing.assert_allclose(
            getattr(adaptive, field), getattr(fine, field)[::32], rtol=1e-6, atol=1e-6, err_msg=field
        )


def test_the_order_of_particles_does_not_matter():
    params, measure = _params(), _measure()
    order = np.array([3, 1, 5, 0, 2, 4])
    path = _run(params, measure, time_grid(NUM_STEPS))
    shuffled = _run(params, jax.tree.map(lambda a: a[order], measure), time_grid(NUM_STEPS))
    np.testing.assert_allclose(shuffled.position, path.position[:, order], rtol=1e-12)
    np.testing.assert_allclose(shuffled.log_weight, path.log_weight[:, order], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(shuffled.log_det, path.log_det[:, order], rtol=1e-10, atol=1e-13)


def test_the_first_node_is_the_measure_given():
    measure = _measure()
    path = _run(_params(), measure, time_grid(NUM_STEPS))
    np.testing.assert_array_equal(path.at(0).position, measure.position)
    np.testing.assert_allclose(path.at(0).log_weight, measure.log_weight, atol=1e-14)
    np.testing.assert_array_equal(path.log_det[0], 0.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_flow_refuses_a_bad_length_scale(alpha):
    with pytest.raises(ValueError, match="alpha"):
        flow(NET, Geometry(alpha), {}, _measure(), time_grid(2))


def test_flow_refuses_a_grid_of_one_node():
    with pytest.raises(ValueError, match="grid"):
        flow(NET, Geometry(1.0), {}, _measure(), jnp.zeros(1))
