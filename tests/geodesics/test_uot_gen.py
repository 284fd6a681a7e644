"""Training as a method: schedules, averages, invariance, the Hamilton-Jacobi residual."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import dynamics, geodesics, measures, potentials, training
from wfr_flows.measures import Particles

POTENTIAL = potentials.resnet(2, width=4)


def batch(key, size=24):
    keys = jax.random.split(key)
    source, target = (measures.standard_normal(2).sample(k, size) for k in keys)
    return source._replace(log_weight=source.log_weight + jnp.linspace(-1.0, 1.0, size)), target


def method(**options):
    geometry = dynamics.Geometry(1.3)
    return geodesics.uot_gen(
        POTENTIAL, geometry, measures.standard_normal(2).log_density, optax.sgd(0.01), num_steps=2, **options
    )


def test_weights_follow_their_schedules(key):
    rising = method(action_weight=lambda step: 0.1 * step, velocity_weight=0.5, residual_weight=0.2)
    state = rising.init(POTENTIAL.init(key))
    step = jax.jit(rising.step)
    for count in range(3):
        assert state.step == count
        state, (total, terms) = step(key, state, batch(key))
        expected = terms.cross_entropy + 0.1 * count * terms.action
        expected += 0.5 * terms.velocity + 0.2 * terms.residual
        np.testing.assert_allclose(total, expected, rtol=1e-12)


def test_the_average_forgets_by_its_factor(key):
    averaging = method(average_decay=0.75)
    state = averaging.init(POTENTIAL.init(key))
    after, _ = jax.jit(averaging.step)(key, state, batch(key))
    jax.tree.map(
        lambda average, old, new: np.testing.assert_allclose(average, 0.75 * old + 0.25 * new, rtol=1e-6),
        after.average,
        state.params,
        after.params,
    )
    with pytest.raises(ValueError, match="average_decay"):
        method(average_decay=1.0)


def test_mass_and_order_of_the_particles_change_nothing(key):
    source, target = batch(key)
    order = jax.random.permutation(key, source.log_weight.size)
    heavier = Particles(source.position[order], source.log_weight[order] + 5.0)
    plain = method()
    state = plain.init(POTENTIAL.init(key))
    step = jax.jit(plain.step)
    one, _ = step(key, state, (source, target))
    other, _ = step(key, state, (heavier, target))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_residual_vanishes_on_a_solution_of_the_equation():
    # Φ = s·x + ½|s|²t solves ∂ₜΦ = ½|∇Φ|²; without the function of time it does not.
    slope = jnp.array([0.8, -0.3])
    evaluate = {}
    for name, rate in (("solved", 0.5 * jnp.sum(slope**2)), ("not", 0.0)):
        potential = potentials.from_function(lambda p, t, x, rate=rate: slope @ x + rate * t)
        objective = geodesics.objective(
            potential, dynamics.Geometry(jnp.inf), measures.standard_normal(2).log_density
        )
        evaluate[name] = objective({}, *batch(jax.random.key(0)))
    np.testing.assert_allclose(evaluate["solved"].residual, 0, atol=1e-12)
    np.testing.assert_allclose(evaluate["not"].residual, 0.5 * jnp.sum(slope**2), rtol=1e-10)


def test_training_resumes_with_averages(key):
    averaging = method(average_decay=0.9)

    def train(state, start, stop):
        return training.run(averaging, key, state, batch, stop, start=start, chunk_size=2)

    whole = train(averaging.init(POTENTIAL.init(key)), 0, 6)
    half = train(train(averaging.init(POTENTIAL.init(key)), 0, 4), 4, 6)
    jax.tree.map(np.testing.assert_array_equal, whole, half)
