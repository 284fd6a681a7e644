import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfr_flows.measures import Particles, empirical, padded, particles, resample

weights = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6)


def test_mass_weight_and_normalise():
    measure = particles([[0.0], [1.0], [2.0]], [1.0, 3.0, 0.0])
    np.testing.assert_allclose(measure.mass, 4.0)
    np.testing.assert_allclose(measure.weight, [1.0, 3.0, 0.0])
    unit = measure.normalise()
    np.testing.assert_allclose(unit.weight, [0.25, 0.75, 0.0])
    np.testing.assert_array_equal(unit.position, measure.position)


def test_mass_of_nothing_is_zero():
    assert Particles(jnp.zeros((2, 1)), jnp.full(2, -jnp.inf)).mass == 0.0


def test_logarithms_keep_weights_that_underflow():
    measure = Particles(jnp.zeros((2, 1)), jnp.array([-2000.0, -2000.0 + np.log(3.0)]))
    np.testing.assert_allclose(measure.normalise().weight, [0.25, 0.75], rtol=1e-12)
    np.testing.assert_allclose(measure.effective_sample_size, 1.6, rtol=1e-12)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [([1, 1, 1, 1], 4.0), ([1, 0, 0, 0], 1.0), ([5, 5, 0, 0], 2.0), ([1, 3, 0, 0], 1.6)],
)
def test_effective_sample_size(weight, expected):
    measure = particles(np.zeros((4, 1)), weight)
    np.testing.assert_allclose(measure.effective_sample_size, expected, rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(weight=weights)
def test_mass_and_sample_size_of_any_weights(weight):
    # Hypothesis runs the body inside the double-precision fixture; padding keeps one compiled shape.
    padded = np.pad(np.array(weight), (0, 6 - len(weight)))
    measure = particles(np.zeros((6, 1)), padded)
    np.testing.assert_allclose(measure.mass, padded.sum(), rtol=1e-12)
    np.testing.assert_allclose(measure.normalise().mass, 1.0, rtol=1e-12)
    size = padded.sum() ** 2 / (padded**2).sum()
    np.testing.assert_allclose(measure.effective_sample_size, size, rtol=1e-11)
    assert 1 - 1e-9 <= size <= len(weight) + 1e-9


def test_points_on_the_line_and_default_weights():
    measure = particles([1.0, 2.0, 4.0])
    assert measure.position.shape == (3, 1)
    np.testing.assert_allclose(measure.weight, 1 / 3)


def test_integers_and_booleans_become_floats():
    measure = particles(np.array([[1, 2], [3, 4]]), np.array([True, False]))
    assert measure.position.dtype == measure.log_weight.dtype == jnp.float64
    np.testing.assert_array_equal(measure.log_weight, [0.0, -np.inf])


def test_particles_follow_the_default_float_type():
    with jax.enable_x64(False):
        assert particles(np.zeros((2, 1))).position.dtype == jnp.float32


TWO = [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("position", "weight", "message"),
    [
        (np.zeros((0, 2)), None, "empty"),
        ([], None, "empty"),
        (np.zeros((2, 0)), None, "shape"),
        (np.zeros((2, 2, 2)), None, "shape"),
        (3.0, None, "shape"),
        ([["a"], ["b"]], None, "dtype"),
        ([[1j], [2.0]], None, "dtype"),
        ([[0.0], [np.nan]], None, "NaN.*row 1"),
        ([[np.inf], [0.0]], None, "infinite.*row 0"),
        (TWO, [1.0], "weights"),
        (TWO, [[1.0], [1.0]], "weights"),
        (TWO, [1.0, np.nan], "weights.*NaN"),
        (TWO, [1.0, np.inf], "weights.*infinite"),
        (TWO, [1.0, -0.1], "weights.*negative"),
        (TWO, [0.0, 0.0], "weights.*zero"),
    ],
)
def test_what_is_no_measure_is_refused_by_name(position, weight, message):
    with pytest.raises(ValueError, match=message) as caught:
        particles(position, weight, name="prior")
    assert "prior" in str(caught.value)


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="weights of position"):
        particles(TWO, ["a", "b"])


def test_positions_too_large_for_single_precision_are_refused():
    # 1e300 is finite in the file and infinite in float32.
    with jax.enable_x64(False), pytest.raises(ValueError, match="position"):
        particles([[1e300], [0.0]])


def test_resample_gives_the_asked_number_of_equal_weights(key):
    drawn = resample(key, particles([[0.0], [1.0]], [2.0, 6.0]), 7)
    assert drawn.position.shape == (7, 1)
    np.testing.assert_allclose(drawn.log_weight, -np.log(7.0))
    np.testing.assert_allclose(drawn.mass, 1.0)


def test_resample_draws_each_particle_its_share_rounded_up_or_down(key):
    weight = np.array([0.05, 0.2, 0.31, 0.0, 0.44])
    measure = particles(np.arange(5.0), weight * 3)
    drawn = jax.jit(jax.vmap(lambda k: resample(k, measure, 10).position))(jax.random.split(key, 50))
    counts = np.stack([(drawn[..., 0] == i).sum(axis=1) for i in range(5)], axis=1)
    assert (counts >= np.floor(10 * weight - 1e-9)).all()
    assert (counts <= np.ceil(10 * weight + 1e-9)).all()


def test_resample_is_unbiased(key):
    weight = np.array([0.15, 0.25, 0.6])
    measure = particles(np.arange(3.0), weight)
    num_draws = 4000
    drawn = jax.jit(jax.vmap(lambda k: resample(k, measure, 5).position[:, 0]))(
        jax.random.split(key, num_draws)
    )
    for i in range(3):
        count = np.asarray((drawn == i).sum(axis=1))
        # Systematic counts take two neighbouring values: variance at most 1/4.
        assert abs(count.mean() - 5 * weight[i]) < 4 * 0.5 / np.sqrt(num_draws)


def test_resample_moments_are_within_the_standard_error_of_independent_draws(key):
    position = np.random.default_rng(0).normal(size=(200, 2))
    weight = np.random.default_rng(1).uniform(size=200)
    measure = particles(position, weight)
    drawn = np.asarray(resample(key, measure, 1000).position)
    mean = weight @ position / weight.sum()
    deviation = np.sqrt(weight @ (position - mean) ** 2 / weight.sum())
    assert (abs(drawn.mean(axis=0) - mean) < 4 * deviation / np.sqrt(1000)).all()
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=4 / np.sqrt(2000) * 2)


def test_resample_order_is_random(key):
    measure = particles(np.arange(50.0))
    assert (np.diff(np.asarray(resample(key, measure, 50).position[:, 0])) < 0).any()


def test_resample_never_draws_weight_zero_even_at_the_last_edge():
    # In float32, (9999 + u)/10000 rounds to 1 for u near 1: the point falls on the end of the cumulative sum.
    # Of the first 20000 keys this one has the largest u, 0.99995.
    measure = Particles(jnp.arange(3, dtype=jnp.float32)[:, None], jnp.array([0, 0, -jnp.inf], jnp.float32))
    assert resample(jax.random.key(18008), measure, 10_000).position.max() < 2.0


def test_empirical_is_resampling_of_the_normalised_measure(key):
    measure = particles([[0.0], [1.0]], [1.0, 3.0])
    law = empirical(measure)
    assert law.dim == 1
    assert law.log_density is None
    drawn = law.sample(key, 8)
    np.testing.assert_allclose(drawn.mass, 1.0)
    assert (drawn.position == 1.0).sum() == 6


def test_padding_adds_particles_without_weight():
    measure = Particles(jnp.arange(4.0).reshape(2, 2), jnp.log(jnp.array([1.0, 2.0])))
    more = padded(measure, 5)
    assert more.position.shape == (5, 2)
    np.testing.assert_allclose(more.weight, [1.0, 2.0, 0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="size is 1"):
        padded(measure, 1)


def test_traced_arrays_make_particles_and_wrong_shapes_are_refused_all_the_same():
    build = jax.jit(particles)
    position, weight = np.array([0.0, 1.0, 4.0]), np.array([1.0, 0.0, 3.0])
    found, expected = build(position, weight), particles(position, weight)
    jax.tree.map(np.testing.assert_allclose, found, expected)
    np.testing.assert_array_equal(jax.jit(lambda x: particles(x).weight)(position), np.full(3, 1 / 3))
    # d mass / d weight = 1
    slope = jax.jit(jax.grad(lambda w: particles(position, w).mass))(weight + 1)
    np.testing.assert_allclose(slope, np.ones(3))
    with pytest.raises(ValueError, match="one per point"):
        build(position, weight[:2])
    with pytest.raises(ValueError, match="give \\[n, d\\]"):
        build(position[None, None], weight)
