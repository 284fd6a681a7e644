"""Dynamics through snapshots: plans, matching, pushing, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, geodesics, potentials, static, training
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import Particles

ALPHA = 1.5
PLAIN = Geometry(ALPHA, spherical=False)
SIZE = 24


KEY = jax.random.key(1)


def cloud(position, weight, size=None):
    """Weighted particles, with others of weight zero up to a size."""
    more = 0 if size is None else size - len(weight)
    position = np.concatenate([position, np.zeros((more, np.shape(position)[1]))])
    log_weight = np.append(np.log(weight), np.full(more, -np.inf))
    dtype = jnp.result_type(float)
    return Particles(jnp.asarray(position, dtype), jnp.asarray(log_weight, dtype))


def dirac(x, mass):
    return cloud([x], [mass])


def chained(time, snapshots, geometry=PLAIN):
    """A chain of snapshots of one size in the plane, so that one program makes all of them."""
    wide = [
        cloud(np.pad(s.position, [(0, 0), (0, 2 - s.position.shape[1])]), np.asarray(s.weight), SIZE)
        for s in snapshots
    ]
    return geodesics.chain(KEY, time, wide, geometry, tolerance=1e-6)


@pytest.fixture(scope="module")
def three():
    """One Dirac at times 0, 1 and 3, and the chain between."""
    with jax.enable_x64(True):
        snapshots = [dirac([0.0, 0.0], 1.0), dirac([1.0, 0.0], 2.0), dirac([1.0, 0.8], 0.7)]
        return snapshots, chained([0.0, 1.0, 3.0], snapshots)


def exact_field(chain):
    """Right on the paths of single Diracs: ``Φ = -alpha g - v·(x - x(s))`` in a window."""

    def value(diracs, s, x):
        state = static.travel(diracs, s, ALPHA)
        return -ALPHA * state.growth[0] - jnp.vdot(state.velocity[0], x - state.position[0])

    inner = dynamics.potential_field(potentials.from_function(value), PLAIN)
    # The one pair of every window that travels.
    diracs = jax.tree.map(np.asarray, chain.diracs)
    pair = np.argmax(diracs.source_mass * diracs.target_mass, axis=1)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[np.arange(2), pair][:, None]), diracs)
    return dynamics.windowed(inner, chain.time), params


def test_the_chain_is_the_distance_between_neighbours(three):
    snapshots, chain = three
    distance = jax.jit(static.two_diracs)
    for index, (first, last) in enumerate(zip(snapshots, snapshots[1:], strict=False)):
        masses = (np.exp(np.asarray(measure.log_weight))[0] for measure in (first, last))
        places = (np.asarray(measure.position)[0] for measure in (first, last))
        exact = distance(next(places), next(masses), next(places), next(masses), ALPHA)
        np.testing.assert_allclose(chain.upper[index], exact, rtol=1e-4)
    assert chain.converged.all()


def test_the_exact_field_has_no_loss(three):
    _, chain = three
    field, params = exact_field(chain)
    loss = jax.jit(geodesics.chain_matching(field, PLAIN, chain))(params, KEY)
    assert loss < 1e-18


def test_pushing_along_the_exact_field_meets_every_snapshot(three):
    snapshots, chain = three
    field, params = exact_field(chain)

    @jax.jit
    def pushed(params):
        path = geodesics.push(field, PLAIN, params, snapshots[0], chain.time, num_steps=32)
        return path, geodesics.window_actions(field, PLAIN, params, path, 2)

    path, actions = jax.tree.map(np.asarray, pushed(params))
    for node, snapshot in ((32, snapshots[1]), (65, snapshots[2])):
        np.testing.assert_allclose(path.position[node], snapshot.position, atol=1e-4)
        np.testing.assert_allclose(path.log_weight[node], snapshot.log_weight, atol=1e-4)
    np.testing.assert_allclose(actions, chain.upper, rtol=2e-4)


@pytest.mark.parametrize("spherical", [False, True])
def test_at_rest_the_loss_is_the_energy_of_the_plans(spherical):
    geometry = Geometry(ALPHA, spherical=spherical)
    random = np.random.default_rng(2)
    snapshots = [cloud(random.normal(size=(12, 2)), np.full(12, mass / 12)) for mass in (1.0, 1.6, 0.9)]
    chain = chained([0.0, 2.0, 3.0], snapshots, geometry)
    field = dynamics.free_field(2, width=2)
    loss = geodesics.chain_matching(field, geometry, chain, num_times=64, num_pairs=256)
    values = np.asarray(jax.jit(jax.vmap(loss, (None, 0)))(field.init(KEY), jax.random.split(KEY, 20)))
    # Mean by mass, where the mass is half of what all plans of a window start and end with.
    both = np.asarray(chain.diracs.source_mass) + np.asarray(chain.diracs.target_mass)
    expected = np.mean(chain.upper) / (np.mean(np.sum(both, axis=1)) / 2)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(20) + 1e-3 * expected


def test_twice_the_weight_is_a_point_given_twice():
    once = cloud([[0.0], [1.0]], [2.0, 1.0])
    twice = cloud([[0.0], [0.0], [1.0]], np.ones(3))
    target = dirac([0.4], 2.0)
    chains = [chained([0.0, 1.0], [first, target]) for first in (once, twice)]
    np.testing.assert_allclose(chains[0].upper, chains[1].upper, rtol=1e-5)


def test_learned_dynamics_of_two_clusters_carry_the_right_masses():
    # Two far clusters, of which one triples: the plan keeps them apart, and so must the field.
    random, half = np.random.default_rng(3), SIZE // 2
    place = np.stack([np.repeat([-3.0, 3.0], half), np.zeros(SIZE)], axis=1)
    first = cloud(place + 0.2 * random.normal(size=(SIZE, 2)), np.full(SIZE, 1 / SIZE))
    masses = np.repeat([3 / SIZE, 1 / SIZE], half)
    last = cloud(place + 0.5 + 0.2 * random.normal(size=(SIZE, 2)), masses)
    geometry = Geometry(1.0, spherical=False)
    chain = chained([0.0, 1.0], [first, last], geometry)
    field = dynamics.windowed(dynamics.potential_field(potentials.mlp(2, width=16), geometry), chain.time)
    method = geodesics.matching_method(
        geodesics.chain_matching(field, geometry, chain), training.cosine_muon(400)
    )
    state = training.run(method, KEY, jax.jit(method.init)(field.init(KEY)), lambda _: (), 400)
    pushed = jax.jit(lambda params: geodesics.push(field, geometry, params, first, chain.time).at(-1))
    position, log_weight = map(np.asarray, pushed(state.params))
    left = np.sum(np.exp(log_weight)[position[:, 0] < 0])
    np.testing.assert_allclose(np.sum(np.exp(log_weight)), 2.0, rtol=0.02)
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
    far = params._replace(target=np.asarray(params.target) + 0.5)
    heavy = params._replace(target_mass=1.5 * np.asarray(params.target_mass))
    for changed in (far, heavy):
        assert misfit(changed, jax.random.key(0)) > 1e-2


def test_the_misfit_is_energy_distance_and_squared_error_of_mass():
    """Of a field at rest, from one snapshot to two others."""
    still = dynamics.Field(lambda key: {}, lambda params, t, x: dynamics.Rates(0 * x, 0 * t))
    snapshots = [dirac([0.0], 1.0), dirac([2.0], 1.0), dirac([0.0], 0.5)]
    misfit = jax.jit(geodesics.push_misfit(still, PLAIN, [0.0, 1.0, 2.0], snapshots))
    np.testing.assert_allclose(misfit({}, jax.random.key(0)), (4.0 + 1.0) / 2, rtol=1e-12)
    large = [cloud(np.tile(s.position, (9, 1)), np.tile(s.weight, 9)) for s in snapshots]
    drawn = jax.jit(geodesics.push_misfit(still, PLAIN, [0.0, 1.0, 2.0], large, num_particles=3))
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
