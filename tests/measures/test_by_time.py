"""Tables with times."""

import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.measures import Particles, by_time


def test_masses_are_relative_to_the_first_time():
    points = Particles(jnp.arange(5.0)[:, None], jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])))
    found = by_time(points, np.array([2.0, 0.0, 2.0, 0.0, 7.0]))
    assert found.time == [0.0, 2.0, 7.0]
    np.testing.assert_allclose([m.mass for m in found.measure], [1.0, 4 / 6, 5 / 6])
    np.testing.assert_array_equal(found.row[1], [0, 2])
    assert found.without(2.0).time == [0.0, 7.0]


def test_times_that_differ_by_rounding_are_one():
    time = np.array([0.1 + 0.2, 0.3, 1e9, 1e9 + 1e-3, 0.3])
    found = by_time(Particles(jnp.zeros((5, 1)), jnp.zeros(5)), time)
    assert found.time == [0.3, 1e9, 1e9 + 1e-3]
    np.testing.assert_array_equal(found.row[0], [0, 1, 4])


def test_masses_too_far_apart_are_refused():
    points = Particles(jnp.zeros((2, 1)), jnp.array([0.0, 500.0]))
    with pytest.raises(ValueError, match="common scale"):
        by_time(points, np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("time", "message"),
    [([0.0, 0.0], "one time only"), ([0.0, np.nan], "not finite"), ([0.0, 1.0], "no mass")],
)
def test_unusable_times_are_refused(time, message):
    points = Particles(jnp.zeros((2, 1)), jnp.array([0.0, -jnp.inf]))
    with pytest.raises(ValueError, match=message):
        by_time(points, np.array(time))
