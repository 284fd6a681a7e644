"""Matching: its targets are the exact geodesic's, its minimiser the exact potential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wfr_flows import dynamics, geodesics, measures, potentials, refinement, static, training
from wfr_flows.measures import Particles

KEY = jax.random.key(0)


@jax.jit
def _semi_coupling(source, target, alpha):
    result = static.spherical_wfr(source, target, alpha, tolerance=1e-4)
    return static.semi_coupling(result, source, target, alpha)


def coupled(alpha, count=40):
    """A translated Gaussian: both ends on the same quantiles."""
    node = scipy.stats.norm.ppf((np.arange(count) + 0.5) / count)[:, None]
    source, target = (
        Particles(jnp.asarray(x), jnp.asarray(np.full(count, -np.log(count)))) for x in (node + 1.2, node)
    )
    return source, target, _semi_coupling(source, target, alpha)


def test_wasserstein_translation_is_the_minimiser():
    # Straight lines with velocity -1.2: ∇Φ = 1.2 has loss 0 up to the blur of the plan. The constant makes
    # the mean (½ - t) d², with d² = ½ 1.2², where x is at 1.2 (1-t) in the mean.
    _, _, diracs = coupled(jnp.inf)
    linear = potentials.from_function(lambda slope, t, x: slope * x[0] + 0.72 * (0.5 - t) - 1.44 * (1 - t))
    match = geodesics.matching(linear, dynamics.Geometry(jnp.inf), diracs, num_times=16, num_pairs=64)
    keys = jax.random.split(jax.random.key(0), 50)

    @jax.jit
    def parabola(slope):
        loss = jax.value_and_grad(lambda slope: jax.vmap(match, (None, 0))(slope, keys).mean())
        (value, gradient), (_, curvature) = jax.jvp(loss, (slope,), (1.0,))
        return value, gradient, curvature

    _, gradient, curvature = parabola(0.0)
    np.testing.assert_allclose(-gradient / curvature, 1.2, atol=0.02)
    assert parabola(1.2)[0] < 2e-2


def test_dirac_pair_is_matched_exactly_at_any_alpha():
    # One Dirac into another: velocity s'·ẋ, no growth relative to the mean.
    alpha = 1.7
    diracs = static.Diracs(jnp.zeros((1, 2)), jnp.array([[1.0, -0.5]]), jnp.ones(1), jnp.ones(1))

    def value(params, t, x):
        angle = static.cone_angle(diracs, alpha)
        state = static.spherical_travel(diracs, t, alpha, angle)
        mean = (0.5 - t) * 2 * alpha * angle**2
        return mean - jnp.vdot(state.velocity[0], x - state.position[0])

    exact = potentials.from_function(value)
    loss = jax.jit(geodesics.matching(exact, dynamics.Geometry(alpha), diracs))
    assert loss({}, jax.random.key(0)) < 1e-20


@pytest.mark.parametrize("alpha", [0.6, 3.0])
def test_action_of_the_targets_is_the_distance(alpha):
    # At Φ = 0 the loss is the energy e of the conditional paths, ∫Σ m e dt = d²_SWFR, with ½∫Σ m e²/(e + d²)
    # of the Hamilton-Jacobi equation and ½∫(½ - t)² dt d⁴ for the mean.
    _, _, diracs = coupled(alpha)
    zero = potentials.quadratic(1)
    loss = geodesics.matching(zero, dynamics.Geometry(alpha), diracs, num_times=64, num_pairs=512)
    keys = jax.random.split(jax.random.key(0), 20)
    values = np.asarray(jax.jit(jax.vmap(lambda key: loss(zero.init(key), key)))(keys))
    distance, state = map_arrays(on_the_way(diracs, alpha, (np.arange(500) + 0.5) / 500))
    energy = 0.5 * (np.sum(state.velocity**2, axis=-1) + alpha * state.growth**2)
    np.testing.assert_allclose(np.mean(np.sum(state.mass * energy, axis=1)), distance, rtol=1e-3)
    evolution = 0.5 * np.mean(np.sum(state.mass * energy**2 / (energy + distance), axis=1))
    expected = distance + evolution + distance**2 / 24
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(20)


@jax.jit
def on_the_way(diracs, alpha, time):
    """The squared spherical distance, and all Diracs at some times, leaves ``[t, pairs, ...]``."""
    angle = static.cone_angle(diracs, alpha)
    distance = static.spherical_from_plain(static.coupling_cost(diracs, alpha), alpha)
    return distance, jax.vmap(lambda t: static.spherical_travel(diracs, t, alpha, angle))(time)


def map_arrays(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize("alpha", [0.7, 5.0])
def test_energy_is_the_time_derivative_of_the_exact_potential(alpha):
    # The Hamilton-Jacobi equation as matching asks for it, at Diracs: Φ along a path falls by the energy,
    # dΦ/dt = ∂ₜΦ - |v|² with Φ = (½ - t) d² - alpha g, so ∂ₜΦ = |v|² - d² - alpha dg/dt must be the energy.
    _, _, diracs = coupled(alpha)
    time, step = 0.3, 1e-4
    # As many times as elsewhere, so that the program is the same; the three first count.
    times = np.append(time + np.array([-step, 0.0, step]), np.full(497, time))
    distance, state = map_arrays(on_the_way(diracs, alpha, times))
    change = (state.growth[2] - state.growth[0]) / (2 * step)
    derivative = np.sum(state.velocity[1] ** 2, axis=-1) - distance - alpha * change
    energy = 0.5 * (np.sum(state.velocity[1] ** 2, axis=-1) + alpha * state.growth[1] ** 2)
    heavy = state.mass[1] > 1e-6
    np.testing.assert_allclose(derivative[heavy], energy[heavy], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_matching_alone_comes_close_on_the_mixture():
    # The warm start on the published example, alpha = 2: exact d²_SWFR in [1.8569, 1.8570].
    with jax.enable_x64(False):
        mixture, normal = measures.gaussian_mixture_1d(), measures.standard_normal(1)
        keys = jax.random.split(jax.random.key(0), 6)
        source, target = mixture.spread(keys[0], 1000), normal.spread(keys[1], 1000)
        result = static.spherical_wfr(source, target, 2.0)
        diracs = static.semi_coupling(result, source, target, 2.0)
        potential, geometry = potentials.resnet(1), dynamics.Geometry(2.0)
        match = geodesics.matching(potential, geometry, diracs)
        method = geodesics.matching_method(match, training.cosine_muon(1500))
        state = method.init(potential.init(keys[2]))
        state = training.run(method, keys[3], state, lambda _: (), 1500, chunk_size=500)
        evaluate = geodesics.objective(potential, geometry, normal.log_density, num_steps=16)
        terms = jax.jit(evaluate)(state.params, mixture.sample(keys[4], 4096), normal.sample(keys[5], 16384))
        assert abs(terms.action / 1.857 - 1) < 0.015
        assert terms.cross_entropy - 2.0518 < 0.05


def test_gradients_in_the_length_scale_are_finite_where_it_is_infinite():
    potential = potentials.quadratic(1)
    params = potential.init(jax.random.key(0))
    x, mass = np.array([[0.0], [0.3], [1.0]]), jnp.array([0.2, 0.3, 0.5])
    step = 1e-5
    for spherical in (True, False):
        # Equal masses, of which one stays where it is.
        diracs = static.Diracs(jnp.asarray(x), jnp.asarray(x + [[0.0], [0.5], [0.5]]), mass, mass)

        def loss(alpha, diracs=diracs, spherical=spherical):
            geometry = dynamics.Geometry(alpha, spherical)
            if spherical:
                return geodesics.matching(potential, geometry, diracs, num_times=2, num_pairs=4)(params, KEY)
            field = dynamics.potential_field(potential, geometry)
            return refinement.flow_matching(field, geometry, diracs, num_times=2, num_pairs=4)(params, KEY)

        alphas = jnp.array([1.0, np.inf, 1 + step, 1 - step])
        value, slope = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(loss)))(alphas))
        assert np.all(np.isfinite(value))
        np.testing.assert_allclose(slope[:2], [(value[2] - value[3]) / (2 * step), 0.0], atol=1e-8)
        # One that is known to be infinite.
        assert jax.jit(lambda loss=loss: jax.grad(loss)(jnp.inf))() == 0


def test_the_angle_between_measures_has_gradients_where_it_vanishes():
    x, mass = jnp.array([[0.0], [1.0]]), jnp.array([0.4, 0.6])
    apart, same = static.Diracs(x, x + 0.5, mass, mass), static.Diracs(x, x, mass, mass)
    with_slope = jax.jit(jax.value_and_grad(static.cone_angle, argnums=1))
    for diracs, alpha in ((apart, jnp.inf), (same, 1.3), (same, jnp.inf)):
        value, slope = with_slope(diracs, alpha)
        assert (value, slope) == (0, 0)
