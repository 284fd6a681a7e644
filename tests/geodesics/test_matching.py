"""Matching: its targets are the exact geodesic's, its minimiser the exact potential."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import dynamics, geodesics, measures, potentials, static, training
from wfr_flows.measures import Particles


def coupled(alpha, count=40):
    """A translated Gaussian: both ends on the same quantiles."""
    node = jax.scipy.stats.norm.ppf((jnp.arange(count) + 0.5) / count)[:, None]
    source, target = (Particles(x, jnp.full(count, -jnp.log(count))) for x in (node + 1.2, node))
    result = static.spherical_wfr(source, target, alpha, tolerance=1e-4)
    return source, target, static.semi_coupling(result, source, target, alpha)


def test_wasserstein_translation_is_the_minimiser():
    # Straight lines with velocity -1.2: ∇Φ = 1.2 has loss 0 up to the blur of the plan. The constant makes
    # the mean (½ - t) d², with d² = ½ 1.2², where x is at 1.2 (1-t) in the mean.
    _, _, diracs = coupled(jnp.inf)
    linear = potentials.from_function(lambda slope, t, x: slope * x[0] + 0.72 * (0.5 - t) - 1.44 * (1 - t))
    match = geodesics.matching(linear, dynamics.Geometry(jnp.inf), diracs, num_times=16, num_pairs=64)
    keys = jax.random.split(jax.random.key(0), 50)
    loss = jax.jit(lambda slope: jax.vmap(match, (None, 0))(slope, keys).mean())
    zero = jnp.array(0.0)
    minimiser = jax.grad(loss)(zero) / -jax.grad(jax.grad(loss))(zero)
    np.testing.assert_allclose(minimiser, 1.2, atol=0.02)
    assert loss(jnp.array(1.2)) < 2e-2


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
    loss = geodesics.matching(exact, dynamics.Geometry(alpha), diracs)
    assert loss({}, jax.random.key(0)) < 1e-20


@pytest.mark.parametrize("alpha", [0.6, 3.0])
def test_action_of_the_targets_is_the_distance(alpha):
    # At Φ = 0 the loss is the energy of the conditional paths, ∫Σ m(½|v|² + ½alpha g²)dt = d²_SWFR, and
    # ½∫(½ - t)² dt d⁴ for the mean.
    _, _, diracs = coupled(alpha)
    zero = potentials.quadratic(1)
    loss = geodesics.matching(zero, dynamics.Geometry(alpha), diracs, num_times=64, num_pairs=512)
    values = jax.vmap(lambda key: loss(zero.init(key), key))(jax.random.split(jax.random.key(0), 20))
    squared = jnp.sum((diracs.source - diracs.target) ** 2, axis=-1)
    plain = jnp.sum(static.pair_cost(squared, diracs.source_mass, diracs.target_mass, alpha))
    distance = static.spherical_from_plain(plain, alpha)
    expected = distance + distance**2 / 24
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(20)


@pytest.mark.slow
def test_matching_alone_comes_close_on_the_mixture():
    # The warm start on the published example, alpha = 2: exact d²_SWFR in [1.845, 1.857].
    with jax.enable_x64(False):
        mixture, normal = measures.gaussian_mixture_1d(), measures.standard_normal(1)
        keys = jax.random.split(jax.random.key(0), 6)
        source, target = mixture.sample(keys[0], 1000), normal.sample(keys[1], 1000)
        result = static.spherical_wfr(source, target, 2.0)
        diracs = static.semi_coupling(result, source, target, 2.0)
        potential, geometry = potentials.resnet(1), dynamics.Geometry(2.0)
        match = geodesics.matching(potential, geometry, diracs)
        method = training.gradient_method(lambda p, k, _: (match(p, k), ()), optax.adam(5e-3))
        state = method.init(potential.init(keys[2]))
        state = training.run(method, keys[3], state, lambda _: (), 3000, chunk_size=500)
        evaluate = geodesics.objective(potential, geometry, normal.log_density, num_steps=16)
        terms = jax.jit(evaluate)(state.params, mixture.sample(keys[4], 4096), normal.sample(keys[5], 16384))
        assert abs(terms.action / 1.851 - 1) < 0.1
        assert terms.cross_entropy - 2.0518 < 0.3
