"""Proximal training where the saddle point is known: translations of a Gaussian, linear critics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import measures, numerics, potentials, training
from wfr_flows.dynamics import Field, Geometry, Rates, potential_field
from wfr_flows.proximal import diagnose, f_bound, fit, proximal, random_grid, wasserstein_bound

WASSERSTEIN = Geometry(jnp.inf)
SHIFT, KINETIC = 1.0, 0.5
TRANSLATION = potentials.from_function(lambda c, t, x: -c * x[0] + 0.5 * c**2 * t, lambda key: jnp.zeros(()))
LINEAR = potentials.Critic(lambda key: jnp.zeros(()), lambda a, x: a * x[0])
NORMAL = measures.standard_normal(1)


def ends(shift=SHIFT, size=400):
    place = jax.scipy.special.ndtri((jnp.arange(size) + 0.5) / size)[:, None]
    return measures.equally_weighted(place), measures.equally_weighted(place + shift)


def trained(batch, num_steps=150, **options):
    method = proximal(
        potential_field(TRANSLATION, WASSERSTEIN),
        WASSERSTEIN,
        LINEAR,
        optax.adam(optax.cosine_decay_schedule(0.03, num_steps)),
        optax.adam(optax.cosine_decay_schedule(0.03, 5 * num_steps)),
        kinetic_weight=KINETIC,
        num_steps=2,
        **options,
    )
    state = method.init((jnp.zeros(()), jnp.zeros(())))

    @jax.jit
    def loop(state, batch):
        return jax.lax.scan(
            lambda s, k: method.step(k, s, batch), state, jax.random.split(jax.random.key(0), num_steps)
        )

    return loop(state, batch)


@pytest.fixture(scope="module")
def free():
    with jax.enable_x64(True):
        return trained(ends(), 400)[0]


def test_where_the_slope_is_free_flow_and_critic_are_those_of_kl(free):
    # min_c ½(c - m)² + ½λc², with φ = log dN(c, 1)/dN(m, 1) = (c - m)x + constant.
    best = SHIFT / (1 + KINETIC)
    np.testing.assert_allclose(free.outer, best, rtol=0.01)
    np.testing.assert_allclose(free.inner, best - SHIFT, rtol=0.02)


def test_where_the_slope_is_bound_the_flow_moves_by_its_share():
    # sup over |a| <= L of a(c - m) - ½a² has slope -L in c: the flow stops at L/λ.
    lipschitz = 0.1
    state, _ = trained(ends(), 400, lipschitz=lipschitz, penalty_weight=100.0)
    np.testing.assert_allclose(state.outer, lipschitz / KINETIC, rtol=0.05)
    np.testing.assert_allclose(-state.inner, lipschitz, rtol=0.05)


def test_optimality_conditions_hold_at_the_optimum_and_not_beside_it(key):
    look = jax.jit(partial(diagnose, TRANSLATION, WASSERSTEIN, LINEAR, kinetic_weight=KINETIC, num_steps=3))
    best = jnp.asarray(SHIFT / (1 + KINETIC))
    found = look(best, best - SHIFT, key, *ends())
    for value in (found.residual, found.terminal_gap, found.bend):
        np.testing.assert_allclose(value, 0, atol=1e-7)
    np.testing.assert_allclose(found.divergence, 0.5 * (best - SHIFT) ** 2, rtol=1e-2)
    np.testing.assert_allclose(found.action, 0.5 * best**2, rtol=1e-12)
    for slope in (found.slope_on_data, found.slope_between):
        np.testing.assert_allclose(slope, SHIFT - best, rtol=1e-12)
    assert look(0.5 * best, best - SHIFT, key, *ends()).terminal_gap > 0.3


@pytest.mark.parametrize("bound", [f_bound(numerics.chi_squared()), wasserstein_bound])
def test_other_divergences(bound):
    state, info = trained(ends(), 60, bound=bound, penalty_weight=10.0, residual_weight=0.1, frozen=True)
    assert state.outer > 0.1
    assert training.is_finite((state, info))


def test_random_grids_have_every_number_of_steps_and_reach_every_time(key):
    grids = jax.jit(jax.vmap(partial(random_grid, num_steps=4)))(jax.random.split(key, 4000))
    assert grids.shape == (4000, 5)
    np.testing.assert_array_equal(grids[:, 0], 0)
    np.testing.assert_array_equal(grids[:, -1], 1)
    steps = np.diff(grids, axis=1)
    assert (steps >= 0).all()
    share = np.bincount(np.sum(steps > 0, axis=1), minlength=5)[1:] / 4000
    np.testing.assert_allclose(share, 0.25, atol=0.03)
    between = np.asarray(grids[(grids > 0) & (grids < 1)])
    assert np.histogram(between, 10, (0.1, 0.9))[0].min() > 0


def test_a_weight_means_repetition():
    source, target = ends(size=6)
    twice = measures.equally_weighted(jnp.concatenate([target.position, target.position[:3]]))
    heavy = measures.Particles(target.position, jnp.log(jnp.array([2.0, 2, 2, 1, 1, 1])))
    results = [trained((source, end), 5, penalty_weight=0.0)[1].outer_value for end in (twice, heavy)]
    np.testing.assert_allclose(*results, rtol=1e-9)


def test_particles_change_their_weights_where_that_is_cheap():
    # Two places, and the mass of one to be moved to the other: with small alpha it grows there.
    geometry = Geometry(0.05)
    place = jnp.array([[-2.0], [2.0]])
    ends = measures.particles(place, [0.5, 0.5]), measures.particles(place, [0.2, 0.8])

    def rates(params, t, x):
        return Rates(params["velocity"] * x, params["growth"] * x[0])

    field = Field(lambda key: {"velocity": jnp.zeros(()), "growth": jnp.zeros(())}, rates)
    method = proximal(
        field, geometry, LINEAR, optax.adam(0.02), optax.adam(0.02), kinetic_weight=0.1, penalty_weight=0.0
    )
    state = method.init((field.init(jax.random.key(0)), jnp.zeros(())))
    step = jax.jit(lambda state, key: method.step(key, state, ends))
    state, info = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))
    # log(w₂/w₁) = 4·growth is to be log 4.
    np.testing.assert_allclose(4 * state.outer["growth"], jnp.log(4.0), rtol=0.1)
    assert jnp.abs(state.outer["velocity"]) < 0.1


def test_fit_from_weighted_data_in_single_precision(key):
    with jax.enable_x64(False):
        data = measures.particles(np.linspace(-1, 1, 20), np.arange(20.0))
        state = fit(
            key,
            potential_field(potentials.mlp(1, width=4, depth=1), WASSERSTEIN),
            WASSERSTEIN,
            potentials.smooth_critic(1, width=4, depth=1),
            NORMAL,
            measures.empirical(data),
            start_steps=0,
            steps=3,
            batch=16,
            num_steps=2,
        )
    assert state.step == 3
    assert training.is_finite(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinetic_weight": -1.0},
        {"lipschitz": 0.0},
        {"penalty_weight": np.nan},
        {"residual_weight": -1.0},
        {"bend_weight": -1.0},
    ],
)
def test_refusals(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        trained(ends(), 1, **wrong) if "kinetic_weight" not in wrong else proximal(
            potential_field(TRANSLATION, WASSERSTEIN),
            WASSERSTEIN,
            LINEAR,
            optax.sgd(1.0),
            optax.sgd(1.0),
            **wrong,
        )


def test_growth_without_a_sphere_is_refused():
    with pytest.raises(ValueError, match="spherical"):
        proximal(
            potential_field(TRANSLATION, WASSERSTEIN),
            Geometry(1.0, spherical=False),
            LINEAR,
            optax.sgd(1.0),
            optax.sgd(1.0),
        )


@pytest.mark.parametrize(("start_steps", "done"), [(1, 0), (0, 2)])
def test_a_failure_leaves_the_generator_before_it(key, start_steps, done):
    # One Euler step asks for the velocity at time 0 alone, straight lines at all others.
    def rates(params, t, x):
        velocity = jnp.where(t > 0, jnp.nan, params) * x
        return Rates(velocity, jnp.zeros(()))

    with pytest.raises(training.NonFiniteError) as error:
        fit(
            key,
            Field(lambda key: jnp.ones(()), rates),
            WASSERSTEIN,
            potentials.smooth_critic(1, width=4, depth=1),
            NORMAL,
            measures.empirical(ends(size=20)[1]),
            start_steps=start_steps,
            steps=2,
            straighten_steps=1,
            batch=16,
            num_lines=20,
            num_steps=1,
        )
    state = error.value.state
    assert state.step == done
    assert training.is_finite(state)
