"""Q-flow: its cost against closed forms, its steps against autodiff, refinement to Gaussian transport."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import dynamics, measures, potentials, refinement, static
from wfr_flows.dynamics import Geometry, carry, time_grid
from wfr_flows.measures import Particles, equally_weighted, particles
from wfr_flows.refinement import QTerms

WASSERSTEIN = Geometry(jnp.inf, spherical=False)


def quadratic_flow(geometry=WASSERSTEIN, dim=2):
    potential = potentials.moving_quadratic(dim, degree=4)
    return potential, dynamics.potential_field(potential, geometry)


def test_the_cost_of_a_straight_path_is_its_square():
    x = np.random.default_rng(0).normal(size=(6, 3))
    shift = np.array([1.0, 2.0, -2.0])
    time = np.array([0.0, 0.1, 0.6, 1.0])
    position = x + time[:, None, None] * shift
    weight = np.log(np.full((4, 6), 1 / 6))
    path = dynamics.Trajectory(*map(jnp.asarray, (time, position, weight, np.zeros_like(weight))))
    cost = jax.jit(lambda path: refinement.transport_cost(path, WASSERSTEIN))
    np.testing.assert_allclose(cost(path), 9.0)
    # Whatever the direction of time.
    back = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[::-1]), path)
    np.testing.assert_allclose(cost(back), 9.0)


def test_the_cost_of_a_dirac_on_its_way_is_twice_its_distance():
    pairs = static.Diracs(jnp.zeros((1, 2)), jnp.array([[1.0, 0.5]]), jnp.ones(1), jnp.full(1, 2.0))
    time = jnp.linspace(0.0, 1.0, 65)
    state = jax.jit(jax.vmap(lambda t: static.travel(pairs, t, 1.5)))(time)
    path = dynamics.Trajectory(time, state.position, jnp.log(state.mass), jnp.zeros((65, 1)))
    exact = 2 * jax.jit(static.coupling_cost)(pairs, 1.5)
    cost = jax.jit(lambda path: refinement.transport_cost(path, Geometry(1.5, spherical=False)))
    np.testing.assert_allclose(cost(path), exact, rtol=1e-3)


@pytest.mark.parametrize("geometry", [WASSERSTEIN, Geometry(2.0)])
def test_a_step_descends_the_whole_loss(geometry, key):
    potential, field = quadratic_flow(geometry)
    ratio = potentials.moving_quadratic(2, degree=0)
    source = Particles(jax.random.normal(key, (8, 2)), jnp.linspace(-3.0, -1.5, 8))
    target = Particles(1 + jax.random.normal(jax.random.key(1), (8, 2)), jnp.full(8, -2.0))
    if geometry.spherical:
        source, target = source.normalise(), target.normalise()
    # A ratio that does not learn, and a flow that takes the gradient as its step.
    method = refinement.q_flow(
        field,
        geometry,
        ratio,
        optax.sgd(1.0),
        optax.sgd(0.0),
        transport_weight=0.3,
        num_steps=3,
        ratio_steps=2,
    )
    start = refinement.init_params(field, ratio, key)
    start = jax.tree.map(lambda leaf: leaf + 0.1, start)
    # Two seeds, which share everything but the key.
    step = jax.jit(method.step)
    (state, terms), (_, other) = (
        step(one, method.init(start), (source, target)) for one in jax.random.split(key)
    )
    np.testing.assert_allclose(terms.transport, other.transport, rtol=1e-12)

    def loss(params):
        there = carry(field, geometry, params, source, time_grid(3))
        back = carry(field, geometry, params, target, time_grid(3, reverse=True))
        total = 0.0
        for path, own, t in ((there, start.ratio[0], 1.0), (back, start.ratio[1], 0.0)):
            at = jax.vmap(ratio.value, (None, None, 0))(own, jnp.array(t), path.position[-1])
            total += -jnp.sum(jnp.exp(path.log_weight[-1]) * at)
            total += 0.3 * refinement.transport_cost(path, geometry)
        return total

    value, gradient = jax.jit(jax.value_and_grad(loss))(start.flow)
    total = np.sum(terms.divergence) + 0.3 * np.sum(terms.transport)
    np.testing.assert_allclose(total, value, rtol=1e-10)
    before, after, slope = (jax.tree.leaves(tree) for tree in (start.flow, state.flow.params, gradient))
    for a, b, c in zip(before, after, slope, strict=True):
        np.testing.assert_allclose(np.asarray(a) - np.asarray(b), c, rtol=1e-8, atol=1e-12)


def test_twice_the_weight_is_a_point_given_twice(key):
    potential, field = quadratic_flow(Geometry(2.0, spherical=False))
    ratio = potentials.moving_quadratic(2, degree=0)
    x = np.random.default_rng(0).normal(size=(3, 2))
    twice = equally_weighted(jnp.asarray(x[[0, 0, 1, 2]]))
    # The last has no weight, so that one program serves both.
    once = particles(x[[0, 1, 2, 2]], [0.5, 0.25, 0.25, 0.0])
    method = refinement.q_flow(
        field,
        Geometry(2.0, spherical=False),
        ratio,
        optax.sgd(1.0),
        optax.sgd(0.1),
        num_steps=2,
        ratio_steps=1,
    )
    start = jax.tree.map(lambda leaf: leaf + 0.1, refinement.init_params(field, ratio, key))
    step = jax.jit(method.step)
    results = [step(key, method.init(start), (m, m)) for m in (twice, once)]
    for a, b in zip(*(jax.tree.leaves(r) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def _root(matrix):
    spectrum, basis = np.linalg.eigh(matrix)
    return (basis * np.sqrt(spectrum)) @ basis.T


@pytest.fixture(scope="module")
def gaussians():
    """Pairs that are far from optimal, and the flow that refinement makes of them."""
    with jax.enable_x64(True):
        covariance = np.array([[2.0, 1.0], [1.0, 1.0]])
        mean = np.array([1.0, 0.0])
        source = measures.standard_normal(2)
        target = measures.gaussian(jnp.asarray(mean), jnp.asarray(covariance))
        potential, _ = quadratic_flow()
        field = dynamics.potential_field(potential, WASSERSTEIN)

        def draw(key, n):
            a, b = jax.random.split(key)
            return source.spread(a, n), target.spread(b, n)

        keys = jax.random.split(jax.random.key(0), 3)
        # A third of a turn before the optimal map: the ends are right, and the way is long.
        first = source.spread(keys[0], 2048)
        turn = np.array([[-0.5, 0.75**0.5], [-(0.75**0.5), -0.5]])
        last = jnp.asarray(mean + np.asarray(first.position) @ turn @ _root(covariance))
        pairs = static.Diracs(first.position, last, first.weight, first.weight)
        told = []
        params = refinement.refine(
            keys[1],
            field,
            WASSERSTEIN,
            potentials.moving_quadratic(2, degree=0),
            draw,
            pairs=pairs,
            rounds=1,
            num_pairs=2048,
            matching_steps=400,
            refinement_steps=100,
            batch=512,
            refinement_rate=1e-3,
            ratio_rate=1e-2,
            on_chunk=lambda phase, chunk: told.append((phase, chunk)),
        )
        return covariance, pairs, field, params, source.spread(keys[2], 2000), told


def test_refinement_finds_the_optimal_map(gaussians):
    covariance, pairs, field, params, points, told = gaussians
    root = _root(covariance)
    bures = 1.0 + np.trace(np.eye(2) + covariance - 2 * root)
    path = jax.jit(partial(carry, field, WASSERSTEIN))(params, points, time_grid(8))
    cost = jax.jit(lambda path: refinement.transport_cost(path, WASSERSTEIN))
    assert 2 * jax.jit(static.coupling_cost)(pairs, jnp.inf) > 2 * bures
    np.testing.assert_allclose(cost(path), bures, rtol=0.05)
    exact = np.array([1.0, 0.0]) + np.asarray(points.position) @ root
    error = np.sum((np.asarray(path.position)[-1] - exact) ** 2) / np.sum(exact**2)
    assert np.sqrt(error) < 0.06
    assert {phase for phase, _ in told} == {"matching", "refinement"}
    info = told[-1][1].info
    assert isinstance(info, QTerms)
    assert info.logistic.shape[1:] == (2,)


def test_the_flow_is_its_own_inverse(gaussians):
    *_, field, params, points, _ = gaussians
    take = jax.jit(partial(carry, field, WASSERSTEIN))
    there = take(params, points, time_grid(16)).at(-1)
    back = take(params, there, time_grid(16, reverse=True)).at(-1)
    np.testing.assert_allclose(back.position, points.position, atol=1e-4)


def test_a_flow_that_magnifies_rounding_is_inverted_all_the_same():
    # Forward, all comes within e^-8 of 1; on the way back float32 has forgotten where from.
    field = dynamics.Field(lambda key: {}, lambda params, t, x: dynamics.Rates(8 * (1 - x), jnp.zeros(())))
    with jax.enable_x64(False):
        points = equally_weighted(jnp.linspace(0.0, 2.0, 9)[:, None])
        there, error = refinement.round_trip(field, WASSERSTEIN, {}, points)
    assert there.position.dtype == error.dtype == jnp.float32
    np.testing.assert_allclose(there.at(-1).position, 1 + jnp.exp(-8.0) * (points.position - 1), rtol=1e-6)
    assert jnp.max(error) < 1e-5


def test_a_flow_is_compiled_once_for_all_its_round_trips():
    traced = []

    def rates(params, t, x):
        traced.append(t)
        return dynamics.Rates(params * x, jnp.zeros(()))

    field = dynamics.Field(lambda key: jnp.ones(()), rates)
    points = equally_weighted(jnp.linspace(0.0, 2.0, 9)[:, None])
    refinement.round_trip(field, WASSERSTEIN, jnp.ones(()), points)
    first = len(traced)
    refinement.round_trip(field, WASSERSTEIN, jnp.array(0.5), points, reverse=True)
    assert len(traced) == first


@pytest.mark.parametrize("sizes", [{"num_steps": 0}, {"ratio_steps": 0}])
def test_no_steps_are_refused(sizes):
    _, field = quadratic_flow()
    adam = optax.adam(1e-3)
    with pytest.raises(ValueError, match="at least 1"):
        refinement.q_flow(field, WASSERSTEIN, potentials.quadratic(2), adam, adam, **sizes)
