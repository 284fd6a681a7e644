"""The minimax loop against saddle points in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import training

MATRIX = jnp.array([[1.0, 0.5], [-0.3, 2.0]])


def saddle(outer, inner, shift=0.0):
    """``½|x|² + xᵀAy - ½|y - s|²``: by Aᵀx = y - s and x = -Ay, y = (I + AᵀA)⁻¹ s."""
    return 0.5 * outer @ outer + outer @ MATRIX @ inner - 0.5 * jnp.sum((inner - shift) ** 2)


def game(inner_steps=3, outer_steps=2, **options):
    return training.minimax(
        lambda inner, key, shown: saddle(shown[0], inner, shown[1]),
        lambda outer, inner, key, batch: (saddle(outer, inner, batch), outer[0]),
        optax.sgd(0.3),
        optax.sgd(0.1),
        inner_steps=inner_steps,
        outer_steps=outer_steps,
        **options,
    )


START = (jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0]))


def test_alternation_finds_the_saddle_point(key):
    method, shift = game(average_decay=0.5), jnp.array([1.0, -2.0])
    state = training.run(method, key, method.init(START), lambda key: shift, 200)
    y = jnp.linalg.solve(jnp.eye(2) + MATRIX.T @ MATRIX, shift)
    np.testing.assert_allclose(state.inner, y, atol=1e-8)
    np.testing.assert_allclose(state.outer, -MATRIX @ y, atol=1e-8)
    np.testing.assert_allclose(state.average, state.outer, atol=1e-8)
    assert state.step == 200


def test_one_step_is_the_updates_written_out(key):
    method, shift = game(), jnp.array([1.0, -2.0])
    state, info = method.step(key, method.init(START), shift)
    outer, inner = START
    for _ in range(3):
        before_inner = inner
        inner = inner + 0.3 * jax.grad(saddle, argnums=1)(outer, inner, shift)
    shown = outer
    for _ in range(2):
        before_outer = outer
        outer = outer - 0.1 * jax.grad(saddle)(outer, inner, shift)
    np.testing.assert_allclose(state.inner, inner)
    np.testing.assert_allclose(state.outer, outer)
    np.testing.assert_allclose(info.inner_value, saddle(shown, before_inner, shift))
    np.testing.assert_allclose(info.outer_value, saddle(before_outer, inner, shift))
    np.testing.assert_allclose(info.outer_info, before_outer[0])


def test_show_runs_once_and_projections_hold(key):
    calls = []

    def show(outer, key, batch):
        calls.append(1)
        return outer, batch

    method = game(show=show, inner_project=lambda p: jnp.clip(p, -0.5, 0.5), outer_project=jnp.abs)
    state, _ = method.step(key, method.init(START), jnp.zeros(2))
    assert len(calls) == 1
    assert jnp.all(jnp.abs(state.inner) <= 0.5)
    assert jnp.all(state.outer >= 0)


def test_seeds_go_through_vmap(key):
    method = game(show=lambda outer, key, batch: (outer, batch + jax.random.normal(key, (2,))))

    def run(key):
        return method.step(key, method.init(START), jnp.zeros(2))[0].inner

    keys = jax.random.split(key, 3)
    np.testing.assert_allclose(jax.vmap(run)(keys)[1], run(keys[1]))


@pytest.mark.parametrize("options", [{"inner_steps": 0}, {"outer_steps": 0}, {"average_decay": 1.0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        game(**options)
