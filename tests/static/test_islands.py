"""Clusters out of reach of each other, each of two masses that lie almost at one place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import static
from wfr_flows.measures import Particles

ALPHA = 0.5


def islands(key, apart, dtype):
    """Two particles of either measure on each of three islands, and the masses on them."""
    keys = jax.random.split(key, 4)
    centre = jnp.repeat(10.0 * jnp.arange(3), 2)[:, None] * jnp.array([1.0, 0.5])
    clouds = []
    for place_key, weight_key in (keys[:2], keys[2:]):
        position = centre + apart * jax.random.normal(place_key, (6, 2))
        log_weight = 1.5 * jax.random.normal(weight_key, (6,))
        clouds.append(Particles(position.astype(dtype), log_weight.astype(dtype)))
    return *clouds, *(jnp.exp(m.log_weight).reshape(3, 2).sum(axis=1) for m in clouds)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_islands_of_near_particles_close_the_certificate(key, dtype, tolerance):
    @jax.jit
    @jax.vmap
    def solved(key, apart):
        source, target, a, b = islands(key, apart, dtype)
        # Up to what it costs to move by ``apart`` mass is born and dies.
        exact = 2 * ALPHA * jnp.sum((jnp.sqrt(a) - jnp.sqrt(b)) ** 2)
        return static.wfr(source, target, ALPHA, tolerance=tolerance), exact

    # Positions near 20 are not resolved below 1e-6 in single precision; then particles coincide.
    apart = jnp.logspace(-9, -4 if dtype == "float64" else -2, 24)
    result, exact = solved(jax.random.split(key, 24), apart)
    assert result.converged.all()
    moved = 100 * apart**2
    assert (result.value >= exact * (1 - tolerance)).all()
    np.testing.assert_array_less(result.value, exact * (1 + tolerance) + moved)
