"""Critics: slopes within their bound, which the orthogonal one reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import random_like
from wfr_flows import potentials
from wfr_flows.proximal import slopes

LIPSCHITZ = 0.7


@pytest.mark.parametrize("build", [potentials.spectral_critic, potentials.orthogonal_critic])
@pytest.mark.parametrize("dim", [1, 3])
def test_slope_is_bounded_for_any_parameters(key, build, dim):
    critic = build(dim, lipschitz=LIPSCHITZ, width=8, depth=2)
    param_key, place_key = jax.random.split(key)
    params = random_like(param_key, critic.init(key))
    position = 3 * jax.random.normal(place_key, (500, dim))
    assert jnp.max(slopes(critic, params, position)) <= LIPSCHITZ * (1 + 1e-6)
    values = jax.vmap(critic.value, (None, 0))(params, position)
    apart = jnp.linalg.norm(position[:, None] - position[None], axis=-1)
    assert jnp.all(jnp.abs(values[:, None] - values) <= LIPSCHITZ * apart + 1e-9)


def test_orthogonal_layers_keep_the_norm_of_the_gradient(key):
    critic = potentials.orthogonal_critic(3, lipschitz=LIPSCHITZ, width=8, depth=2)
    params = critic.init(key)
    found = slopes(critic, params, jax.random.normal(key, (50, 3)))
    # Inner layers are square, and keep it; the first and last lose what lies outside of their range.
    assert jnp.max(found) > 0.1 * LIPSCHITZ
    square = potentials.orthogonal_critic(1, lipschitz=LIPSCHITZ, width=2, depth=1)
    params = [
        {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.zeros(2)},
        {"kernel": jnp.array([[0.6], [0.0]]), "bias": jnp.zeros(1)},
    ]
    np.testing.assert_allclose(slopes(square, params, jnp.array([[2.0]])), LIPSCHITZ, rtol=1e-6)


def test_slopes_of_a_plane_and_of_a_constant():
    plane = potentials.Critic(lambda key: {}, lambda params, x: params * (3 * x[0] + 4 * x[1]))
    np.testing.assert_allclose(slopes(plane, 1.0, jnp.ones((2, 2))), 5.0, rtol=1e-12)
    flat = jax.grad(lambda scale: jnp.sum(slopes(plane, scale, jnp.ones((2, 2)))))(0.0)
    assert jnp.isfinite(flat)


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        (potentials.smooth_critic, {"dim": 0}),
        (potentials.spectral_critic, {"lipschitz": 0.0}),
        (potentials.orthogonal_critic, {"width": 3}),
        (potentials.orthogonal_critic, {"depth": 0}),
    ],
)
def test_refusals(build, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build(**{"dim": 2, **wrong})
