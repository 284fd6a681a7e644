"""Dynamics through snapshots: plans, matching, pushing, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, geodesics, potentials, static, training
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import Particles, padded

ALPHA = 1.5
PLAIN = Geometry(ALPHA, spherical=False)


def dirac(x, mass):
    return Particles(jnp.array([x]), jnp.log(jnp.array([mass])))


@pytest.fixture(scope="module")
def three():
    """One Dirac at times 0, 1 and 3, and the chain between."""
    with jax.enable_x64(True):
        snapshots = [dirac([0.0, 0.0], 1.0), dirac([1.0, 0.0], 2.0), dirac([1.0, 0.8], 0.7)]
        return snapshots, geodesics.chain(jax.random.key(0), [0.0, 1.0, 3.0], snapshots, PLAIN)


def exact_field(chain):
    """Right on the paths of single Diracs: ``Φ = -alpha g - v·(x - x(s))`` in a window."""

    def value(diracs, s, x):
        state = static.travel(diracs, s, ALPHA)
        return -ALPHA * state.growth[0] - jnp.vdot(state.velocity[0], x - state.position[0])

    inner = dynamics.potential_field(potentials.from_function(value), PLAIN)
    # The one pair of every window that travels.
    pair = jnp.argmax(chain.diracs.source_mass * chain.diracs.target_mass, axis=1)
    params = jax.tree.map(lambda leaf: leaf[jnp.arange(2), pair][:, None], chain.diracs)
    return dynamics.windowed(inner, chain.time), params


def test_the_chain_is_the_distance_between_neighbours(three):
    snapshots, chain = three
    for index, (first, last) in enumerate(zip(snapshots, snapshots[1:], strict=False)):
        exact = static.two_diracs(first.position[0], first.mass, last.position[0], last.mass, ALPHA)
        np.testing.assert_allclose(chain.upper[index], exact, rtol=1e-4)
    assert chain.converged.all()


def test_the_exact_field_has_no_loss(three):
    _, chain = three
    field, params = exact_field(chain)
    loss = geodesics.chain_matching(field, PLAIN, chain)(params, jax.random.key(1))
    assert loss < 1e-18


def test_pushing_along_the_exact_field_meets_every_snapshot(three):
    snapshots, chain = three
    field, params = exact_field(chain)
    path = geodesics.push(field, PLAIN, params, snapshots[0], chain.time, num_steps=32)
    for node, snapshot in ((32, snapshots[1]), (65, snapshots[2])):
        np.testing.assert_allclose(path.position[node], snapshot.position, atol=1e-4)
        np.testing.assert_allclose(path.at(node).mass, snapshot.mass, rtol=1e-4)
    actions = geodesics.window_actions(field, PLAIN, params, path, 2)
    np.testing.assert_allclose(actions, chain.upper, rtol=2e-4)


@pytest.mark.parametrize("spherical", [False, True])
def test_at_rest_the_loss_is_the_energy_of_the_plans(spherical):
    geometry = Geometry(ALPHA, spherical=spherical)
    keys = jax.random.split(jax.random.key(2), 3)
    snapshots = [
        Particles(jax.random.normal(k, (12, 2)), jnp.full(12, jnp.log(mass / 12)))
        for k, mass in zip(keys, (1.0, 1.6, 0.9), strict=True)
    ]
    chain = geodesics.chain(keys[0], [0.0, 2.0, 3.0], snapshots, geometry)
    field = dynamics.free_field(2, width=2)
    loss = geodesics.chain_matching(field, geometry, chain, num_times=64, num_pairs=256)
    values = jax.jit(jax.vmap(loss, (None, 0)))(field.init(keys[0]), jax.random.split(keys[1], 20))
    # Mean by mass, where the mass is half of what all plans of a window start and end with.
    mass = jnp.mean(jnp.sum(chain.diracs.source_mass + chain.diracs.target_mass, axis=1)) / 2
    expected = jnp.mean(chain.upper) / mass
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(20) + 1e-3 * expected


def test_twice_the_weight_is_a_point_given_twice():
    once = Particles(jnp.array([[0.0], [1.0]]), jnp.log(jnp.array([2.0, 1.0])))
    twice = Particles(jnp.array([[0.0], [0.0], [1.0]]), jnp.zeros(3))
    target = dirac([0.4], 2.0)
    chains = [
        geodesics.chain(jax.random.key(0), [0.0, 1.0], [padded(first, 3), target], PLAIN, tolerance=1e-6)
        for first in (once, twice)
    ]
    np.testing.assert_allclose(chains[0].upper, chains[1].upper, rtol=1e-5)


def test_learned_dynamics_of_two_clusters_carry_the_right_masses():
    # Two far clusters, of which one triples: the plan keeps them apart, and so must the field.
    keys = jax.random.split(jax.random.key(3), 4)
    place = jnp.where(jnp.arange(40)[:, None] < 20, jnp.array([-3.0]), jnp.array([3.0]))
    first = Particles(place + 0.2 * jax.random.normal(keys[0], (40, 1)), jnp.full(40, -jnp.log(40.0)))
    masses = jnp.where(jnp.arange(40) < 20, 3 / 40, 1 / 40)
    last = Particles(place + 0.5 + 0.2 * jax.random.normal(keys[1], (40, 1)), jnp.log(masses))
    chain = geodesics.chain(keys[2], [0.0, 1.0], [first, last], Geometry(1.0, spherical=False))
    geometry = Geometry(1.0, spherical=False)
    field = dynamics.windowed(dynamics.potential_field(potentials.mlp(1, width=16), geometry), chain.time)
    method = geodesics.matching_method(
        geodesics.chain_matching(field, geometry, chain), training.cosine_muon(400)
    )
    state = training.run(method, keys[3], method.init(field.init(keys[3])), lambda _: (), 400)
    end = geodesics.push(field, geometry, state.params, first, chain.time).at(-1)
    left = jnp.sum(jnp.where(end.position[:, 0] < 0, end.weight, 0.0))
    np.testing.assert_allclose(end.mass, 2.0, rtol=0.02)
    np.testing.assert_allclose(left, 1.5, rtol=0.02)


@pytest.mark.parametrize(
    ("time", "snapshots", "geometry", "message"),
    [
        ([0.0], [dirac([0.0], 1.0)], PLAIN, "two or more"),
        ([1.0, 0.0], [dirac([0.0], 1.0)] * 2, PLAIN, "do not increase"),
        ([0.0, 1.0], [dirac([0.0], 1.0), dirac([0.0, 0.0], 1.0)], PLAIN, "coordinates"),
        ([0.0, 1.0], [dirac([0.0], 1.0), dirac([0.0], 2.0)], Geometry(jnp.inf, False), "keeps mass"),
    ],
)
def test_what_is_no_chain_is_refused(time, snapshots, geometry, message):
    with pytest.raises(ValueError, match=message):
        geodesics.chain(jax.random.key(0), time, snapshots, geometry)


def test_along_the_exact_field_the_misfit_vanishes_and_rises_with_any_change(three):
    snapshots, chain = three
    field, params = exact_field(chain)
    misfit = jax.jit(geodesics.push_misfit(field, PLAIN, chain.time, snapshots, num_steps=32))
    assert misfit(params, jax.random.key(0)) < 1e-4  # windows are left 1e-5 early
    far = params._replace(target=params.target + 0.5)
    heavy = params._replace(target_mass=1.5 * params.target_mass)
    for changed in (far, heavy):
        assert misfit(changed, jax.random.key(0)) > 1e-2


def test_the_misfit_is_energy_distance_and_squared_error_of_mass():
    """Of a field at rest, from one snapshot to two others."""
    still = dynamics.Field(lambda key: {}, lambda params, t, x: dynamics.Rates(0 * x, 0 * t))
    snapshots = [dirac([0.0], 1.0), dirac([2.0], 1.0), dirac([0.0], 0.5)]
    misfit = geodesics.push_misfit(still, PLAIN, [0.0, 1.0, 2.0], snapshots)
    np.testing.assert_allclose(misfit({}, jax.random.key(0)), (4.0 + 1.0) / 2, rtol=1e-12)
    large = [Particles(jnp.tile(s.position, (9, 1)), jnp.tile(s.log_weight, 9)) for s in snapshots]
    drawn = geodesics.push_misfit(still, PLAIN, [0.0, 1.0, 2.0], large, num_particles=3)
    np.testing.assert_allclose(drawn({}, jax.random.key(0)), (4.0 + 1.0) / 2, rtol=1e-12)


def one_particle_misfit(rates, params):
    """Value and derivative, in single precision, of carrying one particle from 0 to 1 in one unit of time."""
    with jax.enable_x64(False):
        ends = [dirac([0.0], 1.0), dirac([1.0], 1.0)]
        field = dynamics.Field(lambda key: jnp.zeros(()), rates)
        loss = geodesics.push_misfit(field, PLAIN, [0.0, 1.0], ends)
        return jax.jit(jax.value_and_grad(loss))(jnp.float32(params), jax.random.key(0))


@pytest.mark.parametrize("growth", [-80.0, 0.5, 80.0])
def test_the_misfit_of_any_mass_is_finite(growth):
    value, slope = one_particle_misfit(lambda p, t, x: dynamics.Rates(jnp.ones(1), p), growth)
    # (r - 1)² up to r = e, then the tangent in log r, at which the derivative stays.
    log_ratio = min(growth, 1.0)
    tangent = 2 * np.exp(log_ratio) * np.expm1(log_ratio)
    np.testing.assert_allclose(value, np.expm1(log_ratio) ** 2 + tangent * (growth - log_ratio), rtol=1e-3)
    np.testing.assert_allclose(slope, tangent, rtol=1e-3, atol=1e-6)


def test_derivatives_of_chaotic_paths_are_finite():
    def rates(p, t, x):
        return dynamics.Rates(p * jnp.sin(1e7 * x + 1), jnp.zeros(()))

    value, slope = one_particle_misfit(rates, 1.0)
    assert np.isfinite([value, slope]).all()
    # Where nothing is chaotic, nothing is clipped: the end is exp(p).
    value, slope = one_particle_misfit(lambda p, t, x: dynamics.Rates(p * (1 + x), jnp.zeros(())), 1.0)
    np.testing.assert_allclose([value, slope], [2 * (np.e - 2), 2 * np.e], rtol=1e-3)


def test_times_that_lose_digits_are_refused():
    with jax.enable_x64(False):
        ends = [dirac([0.0], 1.0), dirac([1.0], 1.0), dirac([1.0], 1.0)]
        with pytest.raises(ValueError, match="lose digits in float32; subtract the first"):
            geodesics.chain(jax.random.key(0), [20200100, 20200101, 20200102], ends, PLAIN)
