"""Falling temperatures: shares of modes that no gradient flow at temperature 1 finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import measures, potentials
from wfr_flows.gradient_flows import Sample, annealed, evolve, free_energy, icnn_jko
from wfr_flows.training import cosine_muon

ITERATIONS, STEPS = 100, 14


@pytest.fixture(scope="module")
def flow():
    """Temperatures -> particles and infos of a flow from N(1.5, 9) to two modes, twelve widths apart."""
    with jax.enable_x64(True):
        target = measures.mixture(jnp.ones(2), jnp.array([[-3.0], [3.0]]), 0.25 * jnp.ones((2, 1, 1)))
        source = measures.gaussian(jnp.array([1.5]), 9 * jnp.eye(1))
        particles = source.spread(jax.random.key(0), 2048)
        potential = potentials.max_affine(1, units=4, pieces=4, strong_convexity=0.5)

    def towards(log_density):
        return icnn_jko(
            potential,
            free_energy(log_density),
            cosine_muon(ITERATIONS, 2e-2),
            num_iterations=ITERATIONS,
            batch=256,
        )

    @jax.jit
    def run(temperature):
        method = annealed(towards, target.log_density, temperature)
        start = Sample(particles, jax.vmap(source.log_density)(particles.position))
        state = method.init((jax.random.key(1), start))
        return evolve(method, jax.random.key(2), state, jnp.full(STEPS, 20.0))

    return run, target, towards


def _right_half(end):
    return np.mean(end.state.sample.particles.position[:, 0] > 0)


def test_modes_get_their_shares(flow):
    run, _, _ = flow
    hot, infos = run(jnp.geomspace(32.0, 1.0, STEPS - 3))
    cold, _ = run(jnp.ones(STEPS))
    error, without = (abs(_right_half(end) - 0.5) for end in (hot, cold))
    assert error < 0.03
    assert without > 0.1
    assert infos.energy[-1] < 0.05


def test_steps_are_those_of_the_flow_to_the_law_at_that_temperature(flow):
    run, target, towards = flow
    hot, _ = run(jnp.full(STEPS, 7.0))
    assert int(hot.step) == STEPS
    plain = towards(lambda x: target.log_density(x) / 7.0)
    sample = hot.state.sample
    method = annealed(towards, target.log_density, [7.0])
    state = method.init((jax.random.key(1), sample))
    step = jax.jit(lambda m_state: method.step(jax.random.key(3), m_state, 0.5))
    after, info = step(state)
    other = jax.jit(lambda s: plain.step(jax.random.key(3), s, 0.5))(state.state)
    np.testing.assert_array_equal(info.energy, other[1].energy)
    np.testing.assert_array_equal(after.state.sample.particles.position, other[0].sample.particles.position)


@pytest.mark.parametrize("temperature", [[2.0, 0.0], [-1.0], [float("nan")]])
def test_temperatures_that_are_not_above_0_are_refused(temperature):
    with pytest.raises(ValueError, match="above 0"):
        annealed(lambda target: None, lambda x: 0.0, temperature)


@pytest.mark.parametrize("temperature", [[], 1.0, [[1.0]]])
def test_no_vector_of_temperatures_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature has shape"):
        annealed(lambda target: None, lambda x: 0.0, temperature)
