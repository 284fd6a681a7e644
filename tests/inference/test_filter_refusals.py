"""What filters must survive and what they must refuse: stiff drifts, NaN likelihoods, unfit models."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from wfr_flows import measures
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import LinearGaussian
from wfr_flows.inference.filtering.kalman_filter import moments_after
from wfr_flows.inference.filtering.model import advance


def linear(drift, noise=None, dtype=np.float64):
    eye = np.eye(len(drift))
    noise = eye if noise is None else np.asarray(noise)
    parts = drift, np.ones(len(drift)), noise, eye, eye, eye[0], eye
    return LinearGaussian(*(jnp.asarray(np.asarray(part, dtype)) for part in parts))


def assimilated(method, data):
    """`assimilate` as one program, its result in arrays of NumPy."""
    return jax.jit(lambda key: found_by(method, key, data))(jax.random.key(0))


def found_by(method, key, data):
    """The result of a filter with its moments and how they are rounded."""
    found = filtering.assimilate(method, key, data)
    return Found(found, found.mean, found.standard_deviation, found.rounding)


class Found(NamedTuple):
    law: filtering.Filtered
    mean: np.ndarray
    deviation: np.ndarray
    rounding: np.ndarray


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("time", [1e-3, 10.0, 1e6])
def test_moments_of_stiff_models(dtype, time):
    """Far beyond where exp(-A t) overflows: the stationary law, and a slow mode beside fast ones."""
    drift = np.array([[-10.0, 3.0, 0.0], [0.0, -1e4, 0.0], [0.0, 0.0, -1e-3]])
    noise = np.array([[1.0, 0.0], [20.0, 1.0], [0.0, 0.1]])
    model = linear(drift, noise, dtype)
    move, shift, spread = jax.jit(moments_after)(model, jnp.asarray(time, dtype))
    expected = scipy.linalg.expm(drift * time)
    stationary = scipy.linalg.solve_continuous_lyapunov(drift, -noise @ noise.T)
    tolerance = {"rtol": 2e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(move, expected, **tolerance)
    np.testing.assert_allclose(
        shift, np.linalg.solve(drift, (expected - np.eye(3)) @ np.ones(3)), **tolerance
    )
    np.testing.assert_allclose(spread, stationary - expected @ stationary @ expected.T, **tolerance)


def test_the_gradient_of_stiff_moments():
    model = linear([[1.0]])
    found = jax.jit(
        jax.grad(lambda rate: moments_after(model._replace(drift=-rate * jnp.eye(1)), 10.0)[2][0, 0])
    )(10.0)
    # The variance is (1 - exp(-2 rate t)) / (2 rate).
    np.testing.assert_allclose(found, -1 / 200, rtol=1e-10)


def test_times_that_single_precision_cannot_tell_apart():
    unix = 1.7e9 + np.arange(3.0)
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
            filtering.observations(unix, np.zeros(3), start=1.7e9 - 1)
        # Distinct, but of rounded durations: 300 s would become 256 s or 384 s.
        with pytest.raises(ValueError, match="subtract an origin"):
            filtering.observations(1.7e9 + 300 * np.arange(3.0), np.zeros(3), start=1.7e9 - 300)
        near = filtering.observations(unix - 1.7e9, np.zeros(3), start=-1.0)
        np.testing.assert_array_equal(near.time, [0, 1, 2])
    np.testing.assert_array_equal(filtering.observations(unix, np.zeros(3)).time, unix)


@pytest.mark.parametrize(
    ("time", "said"),
    [([0.0, 1.0], "time 0 .*start"), ([1.0, 2.0, 2.0], "2 comes after 2"), ([1.0, np.nan], "time nan")],
)
def test_the_time_at_fault_is_named(time, said):
    with pytest.raises(ValueError, match=said):
        filtering.observations(time, np.zeros(len(time)))


def test_noise_that_changes_in_time_is_simulated_to_order_two():
    law, sensor = measures.gaussian(np.zeros(1), 1e-12 * np.eye(1)), filtering.gaussian_sensor(1.0)
    model = filtering.state_space(law, sensor, drift=lambda t, x: 0 * x, noise=lambda t, x: t * jnp.eye(1))
    start = jnp.asarray(np.zeros((20_000, 1)))
    move = jax.jit(lambda key: advance(key, model, start, jnp.array(0.0), jnp.array(1.0), num_steps=4))
    x = np.asarray(move(jax.random.key(0)))
    # The variance is 1/3, of the midpoint rule less 1/192; with noise of the beginning it would be 7/32.
    np.testing.assert_allclose(np.var(x), 1 / 3 - 1 / 192, rtol=0.04)


def test_small_models_are_not_taken_for_gradient_flows():
    turning = 1e-9 * np.array([[-1.0, 1.0], [-1.0, -1.0]])
    assert linear(turning).state_space().potential is None
    assert linear(-1e-9 * np.eye(2), 1e-6 * np.diag([1.0, 2.0])).state_space().potential is None
    assert linear(-1e-9 * np.eye(2), 1e-6 * np.eye(2)).state_space().potential is not None
    assert linear(-np.eye(2), np.zeros((2, 1))).state_space().potential is None


def test_shapes_of_linear_models_are_checked():
    model = linear(-np.eye(2))
    for wrong, said in (
        (model._replace(drift=[[1.0, 0.0], [0.0, 1.0]]), "drift is a list"),
        (model._replace(observe=jnp.ones(2)), "observe has shape"),
        (model._replace(offset=jnp.ones((2, 1))), "offset has shape"),
    ):
        with pytest.raises(ValueError, match=said):
            wrong.state_space()
        with pytest.raises(ValueError, match=said):
            filtering.kalman_filter(wrong)


def test_gaussian_sensors_are_checked():
    for deviation in (-1.0, 0.0, np.nan, [1.0, -1.0]):
        with pytest.raises(ValueError, match="deviation"):
            filtering.gaussian_sensor(deviation)
    x, y = jnp.ones(2), jnp.ones(1)
    for sensor, said in (
        (filtering.gaussian_sensor(1.0), "an observation is"),
        (filtering.gaussian_sensor(1.0, lambda x: x[0]), "vector"),
        (filtering.gaussian_sensor([1.0, 2.0, 3.0]), "deviation is"),
    ):
        with pytest.raises(ValueError, match=said):
            sensor.log_likelihood(0.0, x, y)
    # A traced deviation is not known, and can be learned.
    slope = jax.jit(jax.grad(lambda s: filtering.gaussian_sensor(s).log_likelihood(0.0, y, y)))(2.0)
    np.testing.assert_allclose(slope, -0.5)
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="temperature"):
            filtering.state_space(
                measures.standard_normal(1), sensor, potential=jnp.sum, temperature=temperature
            )


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (lambda t, x: (1 + x[0] ** 2) * jnp.eye(2), "changes"),
        (lambda t, x: (1 + 0.1 * jnp.sin(t)) * jnp.eye(2), "changes"),
        (np.ones((2, 2)), "singular"),
        (np.ones((2, 1)), "square"),
        (0.0, "singular"),
    ],
)
def test_flows_refuse_noise_that_they_cannot_follow(noise, said):
    law, sensor = measures.standard_normal(2), filtering.gaussian_sensor(1.0)

    def model(amount):
        scaled = (lambda t, x: amount * noise(t, x)) if callable(noise) else amount * noise
        return filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=scaled)

    def predicted(model, amount):
        filtering.flow_prediction(model)
        return amount

    found = model(1.0)
    with pytest.raises(ValueError, match=f"{said}.*particle_filter"):
        filtering.flow_prediction(found)
    with pytest.raises(ValueError, match=f"{said}.*particle_filter"):
        jax.jit(lambda amount: predicted(found, amount))(1.0)
    if said == "changes":
        jax.jit(lambda amount: predicted(model(amount), amount))(1.0)  # cannot be known


def test_constant_noise_is_taken_in_any_units():
    law, sensor = measures.gaussian(np.zeros(2), 1e-12 * np.eye(2)), filtering.gaussian_sensor(1.0)
    for scale in (1e-8, 1e8):
        matrix = jnp.asarray(scale * np.array([[1.0, 0.0], [0.5, 1.0]]))
        model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=lambda t, x, m=matrix: m)
        filtering.flow_prediction(model)


def test_a_likelihood_of_nan_is_seen():
    model = linear([[-1.0]]).state_space()
    seen = filtering.Sensor(lambda t, x, y: jnp.where(x[0] > 1, jnp.nan, 0.0) * y[0], model.sensor.draw)
    data = filtering.observations([0.5, 1.0, 1.5], [np.nan, 1.0, np.nan])
    method = filtering.particle_filter(model._replace(sensor=seen), 100, num_steps=1)
    found = assimilated(method, data)
    np.testing.assert_array_equal(np.isnan(found.law.log_evidence), [False, True, True])
    np.testing.assert_array_equal(np.isnan(found.mean)[:, 0], [False, True, True])


def test_grids_hold_the_initial_law():
    law, sensor = measures.gaussian(np.array([3.0]), np.eye(1)), filtering.gaussian_sensor(1.0)
    model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=1.0)
    for low, high in ((-5.0, 1.0), (-5.0, 5.0)):
        with pytest.raises(ValueError, match="initial law has mass"):
            filtering.grid_filter(model, low, high)
    with pytest.raises(ValueError, match="num_nodes"):
        filtering.grid_filter(model, -5.0, 9.0, num_nodes=2)
    # A jump of the density between nodes is no loss of mass.
    box = measures.uniform_box(np.zeros(1), np.ones(1))
    filtering.grid_filter(model._replace(initial=box), -5.0, 9.0, num_nodes=50)


def still(offset, *, error, dtype=jnp.float32):
    """A state that hardly moves, around an offset: ``N(offset, 1/4)`` and a small diffusion."""
    one = np.ones((1, 1))
    parts = 0 * one, np.zeros(1), 0.1 * one, one, error * one, np.full(1, offset), 0.25 * one
    return LinearGaussian(*(jnp.asarray(part.astype(dtype)) for part in parts))


@pytest.mark.parametrize("method", ["kalman", "bootstrap"])
def test_states_far_from_zero_keep_their_digits_in_single_precision(method):
    """Kalman's formulas by hand, with values that floats around 1e6 hold exactly."""
    offset, variance, mean, expected = 1e6, 0.25, 0.0, []
    for value in (0.5, 1.0):
        variance += 0.01
        total = variance + 1.0
        evidence = -0.5 * np.log(2 * np.pi * total) - 0.5 * (value - mean) ** 2 / total
        mean += variance / total * (value - mean)
        variance /= total
        expected.append((offset + mean, np.sqrt(variance), evidence))
    with jax.enable_x64(False):
        model = still(offset, error=1.0)
        data = filtering.observations([1.0, 2.0], [offset + 0.5, offset + 1.0])
        filters = {
            "kalman": lambda: filtering.kalman_filter(model, 2048),
            "bootstrap": lambda: filtering.particle_filter(model.state_space(), 20_000, num_steps=10),
        }
        found = assimilated(filters[method](), data)
        means, deviations, evidences = np.transpose(expected)
        exact = method == "kalman"
        np.testing.assert_allclose(np.asarray(found.mean)[:, 0], means, atol=0.0625)
        rtol = 2e-3 if exact else 1e-2
        np.testing.assert_allclose(np.asarray(found.deviation)[:, 0], deviations, rtol=rtol)
        np.testing.assert_allclose(found.law.log_evidence, evidences, rtol=1e-5 if exact else 1e-2)
        np.testing.assert_allclose(found.rounding, 2**-23 * 1e6 / deviations, rtol=1e-2)


def test_sensors_far_sharper_than_rounding_leave_no_negative_variance():
    with jax.enable_x64(False):
        drift = np.array([[-0.3, 1.0], [-1.0, -0.3]])
        eye, see = np.eye(2), np.array([[1.0, 0.5]])
        parts = drift, np.zeros(2), 0.5 * eye, see, 1e-12 * np.eye(1), np.zeros(2), eye
        model = LinearGaussian(*(jnp.asarray(part.astype(np.float32)) for part in parts))
        data = filtering.observations([1.0, 2.0], [0.5, 1.0])
        found = assimilated(filtering.kalman_filter(model), data)
        np.testing.assert_allclose(np.asarray(found.mean) @ see[0], [0.5, 1.0], atol=1e-5)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), model)
        data = filtering.observations([1.0, 2.0], [0.5, 1.0])
        exact = assimilated(filtering.kalman_filter(wide), data)
    np.testing.assert_allclose(found.deviation, exact.deviation, rtol=1e-4)
    np.testing.assert_allclose(found.law.log_evidence, exact.law.log_evidence, rtol=1e-5)


def _same(x):
    return x


def test_grids_tell_when_a_law_is_too_sharp_for_them():
    """The coarseness is the distance of nodes over the deviation, also of two sharp modes far apart."""

    @partial(jax.jit, static_argnums=0)
    def coarseness(function, deviation):
        law, sensor = measures.standard_normal(1), filtering.gaussian_sensor(deviation, function)
        model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=1.0)
        method = filtering.grid_filter(model, -6.0, 6.0, num_nodes=601, num_steps=5)
        data = filtering.observations([1.0, 2.0], [1.0, np.nan])
        return filtering.assimilate(method, jax.random.key(0), data).coarseness

    np.testing.assert_allclose(coarseness(_same, 0.05), 0.02 / 0.05, rtol=1e-2)
    np.testing.assert_allclose(coarseness(jnp.square, 0.1), 0.02 / 0.05, rtol=1e-2)
    # Far too sharp, also for the prediction that begins there.
    assert (np.asarray(coarseness(_same, 0.003)) > 2).all()
    with jax.enable_x64(False), pytest.raises(ValueError, match="subtract an origin"):
        filtering.grid_filter(still(1e6, error=1.0).state_space(), 1e6 - 5, 1e6 + 5)


def test_covariances_that_are_not_positive_definite_are_refused():
    model = still(0.0, error=1.0)
    for name, value in (("error", jnp.zeros((1, 1))), ("covariance", jnp.zeros((1, 1)))):
        for builder in (filtering.kalman_filter, LinearGaussian.state_space):
            with pytest.raises(ValueError, match=f"{name}, .*eigenvalue 0; give a positive"):
                builder(model._replace(**{name: value}))


def test_results_mapped_over_the_noise_of_the_sensor():
    """Means and deviations of mapped results, down to a noise whose square is 0 in single precision."""
    with jax.enable_x64(False):
        data = filtering.observations([1.0, 2.0], [0.5, 1.0])

        def run(deviation):
            law, sensor = measures.standard_normal(1), filtering.gaussian_sensor(deviation)
            model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=1.0)
            return filtering.assimilate(
                filtering.particle_filter(model, 200, num_steps=4), jax.random.key(0), data
            )

        noise = jnp.array([0.3, 1.0, 1e-20])

        def moments_of(found):
            return found.mean, found.standard_deviation

        mapped = jax.jit(lambda noise: moments_of(jax.vmap(run)(noise)))(noise)
        mean, deviation = map(np.asarray, mapped)
        assert np.isfinite(mean).all()
        one = jax.jit(lambda deviation: moments_of(run(deviation)))
        for k, alone in enumerate(map(one, (0.3, 1.0))):
            np.testing.assert_allclose(mean[k], alone[0], rtol=1e-4)
            np.testing.assert_allclose(deviation[k], alone[1], rtol=1e-4)

        def total(deviation):
            found = run(deviation)
            return found.mean.sum() + found.log_evidence.sum()

        assert np.isfinite(jax.jit(jax.vmap(jax.grad(total)))(jnp.array([0.3, 1.0]))).all()
