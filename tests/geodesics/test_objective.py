"""The UOT-gen objective against closed forms, and differentiability of everything along it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional_difference, tree_dot

from wfr_flows import dynamics, geodesics, measures, potentials
from wfr_flows.measures import Particles, particles

LINEAR = potentials.from_function(lambda params, t, x: params["slope"] * x[0])


def uniform(position):
    num = position.shape[0]
    return Particles(jnp.asarray(position), jnp.asarray(np.full(num, -np.log(num))))


def normal_nodes(count=400):
    """Gauss-Hermite particles: expectations under N(0, 1) to rounding."""
    node, weight = np.polynomial.hermite_e.hermegauss(100)
    return Particles(jnp.asarray(node[:, None]), jnp.asarray(np.log(weight / np.sqrt(2 * np.pi))))


def test_pure_reaction_has_kl_zero():
    # The sign test: no transport (the jet has no gradient), and source = target · exp((1/alpha)∫Φ)/Z.
    alpha, slope = 1.5, 0.7
    still = potentials.Potential(
        LINEAR.init,
        LINEAR.value,
        lambda p, t, x: LINEAR.jet(p, t, x)._replace(gradient=jnp.zeros_like(x), laplacian=jnp.zeros(())),
    )
    target = normal_nodes()
    # N(0,1) tilted by exp(slope x/alpha) is N(slope/alpha, 1).
    source = Particles(jnp.asarray(np.asarray(target.position) + slope / alpha), target.log_weight)
    evaluate = jax.jit(
        geodesics.objective(still, dynamics.Geometry(alpha), measures.standard_normal(1).log_density)
    )
    terms = evaluate({"slope": jnp.array(slope)}, source, target)
    log_density = scipy.stats.norm.logpdf(np.asarray(source.position)[:, 0], slope / alpha)
    entropy = -np.sum(np.asarray(source.weight) * log_density)
    np.testing.assert_allclose(terms.cross_entropy - entropy, 0, atol=1e-10)
    # With the other sign of Φ the KL is far from 0.
    wrong = evaluate({"slope": jnp.array(-slope)}, source, target)
    assert wrong.cross_entropy - entropy > 0.1


def test_wasserstein_translation_has_known_terms():
    # Φ = slope·x moves everything by -slope: N(slope, 1) -> N(0, 1) exactly.
    nodes = normal_nodes()
    slope = 1.3
    source = Particles(jnp.asarray(np.asarray(nodes.position) + slope), nodes.log_weight)
    evaluate = jax.jit(
        geodesics.objective(LINEAR, dynamics.Geometry(jnp.inf), measures.standard_normal(1).log_density)
    )
    terms = evaluate({"slope": jnp.array(slope)}, source, nodes)
    np.testing.assert_allclose(terms.cross_entropy, 0.5 * np.log(2 * np.pi * np.e), rtol=1e-10)
    np.testing.assert_allclose(terms.action, 0.5 * slope**2, rtol=1e-10)
    np.testing.assert_allclose(terms.velocity, 0, atol=1e-12)


def test_objective_ignores_functions_of_time_and_masses(key):
    # Adding c(t) to Φ changes nothing, nor do the masses of either end.
    base, random = potentials.resnet(2, width=8), np.random.default_rng(0)
    shifted = potentials.from_function(lambda p, t, x: base.value(p["base"], t, x) + p["c"] * jnp.sin(5 * t))
    params = base.init(key)
    source, target = (uniform(random.normal(size=(20, 2))) for _ in range(2))
    density = measures.standard_normal(2).log_density
    evaluate = jax.jit(geodesics.objective(shifted, dynamics.Geometry(0.8), density, num_steps=16))
    one = evaluate({"base": params, "c": jnp.array(0.0)}, source, target)
    two = evaluate(
        {"base": params, "c": jnp.array(3.0)},
        source._replace(log_weight=source.log_weight + 2),
        target._replace(log_weight=target.log_weight - 1),
    )
    # All but the residual, which tells such functions apart and has no weight here.
    np.testing.assert_allclose(np.array(one[:-1]), np.array(two[:-1]), rtol=1e-7)


def test_weights_mean_repetition(key):
    potential = potentials.resnet(1, width=4)
    params = potential.init(key)
    x = np.array([[-1.0], [0.4], [2.0]])
    log_density = measures.standard_normal(1).log_density
    evaluate = jax.jit(geodesics.objective(potential, dynamics.Geometry(1.0), log_density, num_steps=4))
    # Three have no weight, so that one program serves both.
    weighted = particles(x[[0, 1, 2, 2, 2, 2]], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    repeated = uniform(x[[0, 1, 1, 2, 2, 2]])
    one, two = evaluate(params, weighted, weighted), evaluate(params, repeated, repeated)
    np.testing.assert_allclose(np.array(one), np.array(two), rtol=1e-12)


def test_zero_weights_do_not_count(key):
    potential = potentials.resnet(1, width=4)
    params = potential.init(key)
    evaluate = geodesics.objective(
        potential, dynamics.Geometry(1.0), measures.standard_normal(1).log_density, num_steps=2
    )
    x = np.random.default_rng(0).normal(size=(5, 1))
    # The last one is given twice at half its weight, so that one program serves both.
    kept = particles(np.append(x, x[-1:], 0), [0.2] * 4 + [0.1, 0.1])
    more = particles(np.append(x, np.ones((1, 1)), 0), [0.2] * 5 + [0.0])

    def total(params, measure):
        terms = evaluate(params, measure, measure)
        return terms.total, terms

    differentiated = jax.jit(jax.grad(total, has_aux=True))
    gradient, terms = differentiated(params, more)
    np.testing.assert_allclose(np.array(terms), np.array(differentiated(params, kept)[1]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("alpha", "dtype"),
    [
        (0.7, jnp.float64),
        (jnp.inf, jnp.float64),
        pytest.param(0.7, jnp.float32, marks=pytest.mark.slow),
        pytest.param(jnp.inf, jnp.float32, marks=pytest.mark.slow),
    ],
)
def test_derivatives_of_the_objective(key, dtype, alpha):
    potential, random = potentials.resnet(2, width=4), np.random.default_rng(0)
    cast = partial(jax.tree.map, lambda leaf: jnp.asarray(np.asarray(leaf).astype(dtype)))
    params = cast(potential.init(key))
    source, target = (cast(uniform(random.normal(size=(12, 2)))) for _ in range(2))
    log_density = measures.standard_normal(2).log_density

    def total(params):
        evaluate = geodesics.objective(potential, dynamics.Geometry(alpha), log_density, num_steps=2)
        return evaluate(params, source, target).total

    @jax.jit
    def derivatives(params):
        return jax.jvp(jax.value_and_grad(total), (params,), (params,))

    (value, gradient), (tangent, hessian_product) = derivatives(params)
    assert jax.tree.leaves(gradient)[0].dtype == dtype
    np.testing.assert_allclose(
        tree_dot(gradient, params), tangent, rtol=1e-3 if dtype == jnp.float32 else 1e-9
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, hessian_product)))
    if dtype == jnp.float64:
        # The same program again.
        difference = directional_difference(lambda params: derivatives(params)[0][0], params, params)
        np.testing.assert_allclose(difference, tangent, rtol=1e-6)


def test_objective_vmaps_over_alpha_and_seeds(key):
    potential = potentials.resnet(1, width=4)
    params = jax.jit(jax.vmap(potential.init))(jax.random.split(key, 3))
    measure = uniform(np.random.default_rng(0).normal(size=(10, 1)))

    def total(alpha, params):
        evaluate = geodesics.objective(
            potential, dynamics.Geometry(alpha), measures.standard_normal(1).log_density, num_steps=2
        )
        return evaluate(params, measure, measure).total

    batch = jax.jit(jax.vmap(total))(jnp.array([0.5, 2.0, jnp.inf]), params)
    one = jax.tree.map(lambda leaf: leaf[1], params)
    single, gradient = jax.jit(jax.value_and_grad(total))(2.0, one)
    np.testing.assert_allclose(batch[1], single, rtol=1e-10)
    assert jnp.isfinite(gradient)


def test_unusable_arguments_are_named():
    potential = potentials.resnet(1)
    with pytest.raises(ValueError, match="spherical"):
        geodesics.objective(
            potential, dynamics.Geometry(1.0, spherical=False), measures.standard_normal(1).log_density
        )
    with pytest.raises(ValueError, match="action_weight"):
        geodesics.objective(
            potential, dynamics.Geometry(1.0), measures.standard_normal(1).log_density, action_weight=-1.0
        )
    measure = uniform(jnp.zeros((2, 1)))
    evaluate = geodesics.objective(
        potential, dynamics.Geometry(-1.0), measures.standard_normal(1).log_density
    )
    params = potential.init(jax.random.key(0))
    with pytest.raises(ValueError, match="alpha"):
        evaluate(params, measure, measure)


def test_alpha_known_to_be_inf_and_traced_are_the_same(key):
    # The former computes no growth at all.
    potential = potentials.resnet(2, width=6)
    params = potential.init(key)
    random = np.random.default_rng(0)
    source, target = (uniform(random.normal(size=(16, 2))) for _ in range(2))
    density = measures.standard_normal(2).log_density

    def total(params, alpha):
        evaluate = geodesics.objective(
            potential, dynamics.Geometry(alpha), density, residual_weight=0.5, num_steps=4
        )
        return evaluate(params, source, target).total

    known = jax.jit(jax.value_and_grad(lambda params: total(params, jnp.inf)))(params)
    traced = jax.jit(jax.value_and_grad(total))(params, jnp.inf)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), known, traced)
    assert dynamics.Geometry(jnp.inf).balanced
    assert not dynamics.Geometry(2.0).balanced
