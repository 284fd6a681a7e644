import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.cli.units import units_of
from wfr_flows.measures import Particles, equally_weighted


def test_measures_together_have_mean_zero_and_spread_one():
    rng = np.random.default_rng(0)
    measures = [
        Particles(jnp.asarray(rng.normal(1e4, 3, (n, 2)), jnp.float32), jnp.asarray(rng.normal(2, 1, n)))
        for n in (50, 80)
    ]
    units = units_of(measures)
    moved = [units(m) for m in measures]
    shares = [np.exp(m.log_weight) / np.exp(m.log_weight).sum() for m in measures]
    means = [w @ m.position for w, m in zip(shares, moved, strict=True)]
    squares = [w @ np.mean(m.position**2, axis=1) for w, m in zip(shares, moved, strict=True)]
    np.testing.assert_allclose(np.mean(means, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.mean(squares), 1, rtol=1e-5)
    for before, after in zip(measures, moved, strict=True):
        np.testing.assert_allclose(units.back(after.position), before.position, rtol=1e-7)


@pytest.mark.parametrize(("offset", "log_weight"), [(1.7e9, 0.0), (-1e5, -200.0), (0.0, 200.0)])
def test_neither_offset_nor_mass_matters(offset, log_weight):
    with jax.enable_x64(True):
        position = jnp.asarray(np.random.default_rng(0).normal(offset, 3.0, (50, 2)))
        units = units_of([Particles(position, jnp.full(50, log_weight))])
        expected = np.sqrt(np.mean((position - position.mean(axis=0)) ** 2))
    np.testing.assert_allclose(units.spread, expected, rtol=1e-6)
    np.testing.assert_allclose(units.center, position.mean(axis=0), rtol=1e-12)


def test_equal_points_have_no_spread():
    units = units_of([equally_weighted(jnp.full((7, 3), 0.1))])
    assert units.spread == 1
    np.testing.assert_allclose(units.center, 0.1, rtol=1e-6)
