"""The reference on the line against closed forms, and the density of a variational flow against it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import gradient_flows, measures, potentials


@pytest.fixture(scope="module")
def dilation():
    """One porous-medium step from Barenblatt's profile, which stays one: its radius before and after."""
    with jax.enable_x64(True):
        radius = measures.barenblatt_radius(1, 2.0, 0.01)
        edge = jnp.linspace(-radius, radius, 161)
        share = edge / radius
        total = 0.5 + 0.75 * (share - share**3 / 3)
        cells = gradient_flows.Cells(edge, jnp.diff(total))
        after, decrement = jax.jit(lambda c: gradient_flows.line_jko(c, 2e-3, m=2.0))(cells)
        return radius, cells, after, decrement


def test_porous_medium_step_is_a_dilation(dilation):
    radius, cells, after, decrement = dilation
    # d/dR of R²/5 about R0 and of ∫ρ² = 3/(5R): (R - R0)/(5a) = 3/(5R²).
    edge = np.asarray(after.edge)
    ratio = edge[90:-10] / np.asarray(cells.edge)[90:-10]
    found = radius * ratio[0]
    np.testing.assert_allclose((found - radius) / 2e-3, 3 / found**2, rtol=0.01)
    np.testing.assert_allclose(radius * ratio, found, rtol=2e-3)
    assert decrement < 1e-12
    np.testing.assert_allclose(np.sum(np.asarray(after.density) * np.diff(edge)), 1.0)
    middle = 0.5 * (edge[:-1] + edge[1:])
    np.testing.assert_allclose(after.density_at(middle), after.density)
    assert jnp.all(after.density_at(jnp.array([-9.0, 9.0])) == 0)


def test_gaussian_step_in_a_quadratic_potential():
    edge = jnp.linspace(-6.0, 6.0, 241)
    cells = gradient_flows.Cells(edge, jnp.diff(jax.scipy.stats.norm.cdf(edge)))
    step = jax.jit(lambda c: gradient_flows.line_jko(c, 0.1, potential=lambda x: (x - 1) ** 2))
    after, _ = step(cells)
    middle = 0.5 * (after.edge[:-1] + after.edge[1:])
    mean = jnp.sum(after.mass * middle)
    np.testing.assert_allclose(mean, 0.2 / 1.2, rtol=1e-3)
    deviation = (1 / 0.1 + jnp.sqrt((1 / 0.1) ** 2 + 4 * 12)) / 24
    np.testing.assert_allclose(jnp.sqrt(jnp.sum(after.mass * (middle - mean) ** 2)), deviation, rtol=2e-3)


def test_moves_by_convex_gradients_are_maps_with_a_density(key):
    potential = potentials.icnn(1, width=4)
    params = potential.init(key)
    params = potential.project({**params, "readout": params["readout"] + 0.1, "shift": params["shift"] + 0.2})
    moves = gradient_flows.Move(
        jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf, 0.9 * np.asarray(leaf)])), params),
        jnp.array([[0.1], [0.3]]),
        jnp.array([1.0, 1.5]),
        jnp.zeros(2),
        jnp.zeros(2),
        measures.Particles(jnp.zeros((2, 0, 1)), jnp.zeros((2, 0))),
    )
    maps = gradient_flows.convex_maps(moves)
    law = measures.standard_normal(1)
    x = jnp.linspace(-6.0, 6.0, 201)[:, None]
    sample = gradient_flows.Sample(measures.equally_weighted(x), jax.vmap(law.log_density)(x))
    (end, _), log_rho = jax.jit(lambda maps: gradient_flows.carry(potential, maps, sample))(maps)
    energy = gradient_flows.FreeEnergy(potential=lambda y: y[0])
    push = jax.jit(lambda moves: gradient_flows.push(energy, gradient_flows.gradient_of(potential), moves, x))
    pushed, _ = push(moves)
    np.testing.assert_allclose(end, pushed, atol=1e-12)
    np.testing.assert_allclose(np.trapezoid(np.exp(log_rho), np.asarray(end)[:, 0]), 1.0, rtol=1e-3)
    second = gradient_flows.convex_maps(moves._replace(inertia=jnp.array([0.0, 0.3])))
    assert jnp.isnan(second.scale[1])
    pushing = moves._replace(sources=measures.Particles(jnp.zeros((2, 3, 1)), jnp.zeros((2, 3))))
    with pytest.raises(ValueError, match="forward-backward"):
        gradient_flows.convex_maps(pushing)


def test_exponents_below_one_are_refused():
    cells = gradient_flows.Cells(jnp.array([0.0, 1.0]), jnp.ones(1))
    with pytest.raises(ValueError, match="m is"):
        gradient_flows.line_jko(cells, 0.1, m=0.5)
