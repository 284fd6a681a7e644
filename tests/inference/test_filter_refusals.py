"""What filters must survive and what they must refuse: stiff drifts, NaN likelihoods, unfit models."""

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


def linear(drift, noise=None, dtype=jnp.float64):
    eye = jnp.eye(len(drift), dtype=dtype)
    drift = jnp.asarray(drift, dtype)
    noise = eye if noise is None else jnp.asarray(noise, dtype)
    return LinearGaussian(drift, jnp.ones(len(drift), dtype), noise, eye, eye, eye[0], eye)


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
    found = jax.grad(
        lambda rate: moments_after(linear([[1.0]])._replace(drift=-rate * jnp.eye(1)), 10.0)[2][0, 0]
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
    law, sensor = measures.gaussian(jnp.zeros(1), 1e-12 * jnp.eye(1)), filtering.gaussian_sensor(1.0)
    model = filtering.state_space(law, sensor, drift=lambda t, x: 0 * x, noise=lambda t, x: t * jnp.eye(1))
    x = advance(jax.random.key(0), model, jnp.zeros((20_000, 1)), jnp.array(0.0), jnp.array(1.0), num_steps=4)
    # The variance is 1/3, of the midpoint rule less 1/192; with noise of the beginning it would be 7/32.
    np.testing.assert_allclose(jnp.var(x), 1 / 3 - 1 / 192, rtol=0.04)


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
    slope = jax.grad(lambda s: filtering.gaussian_sensor(s).log_likelihood(0.0, y, y))(2.0)
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
    law, sensor = measures.gaussian(jnp.zeros(2), 1e-12 * jnp.eye(2)), filtering.gaussian_sensor(1.0)
    for scale in (1e-8, 1e8):
        matrix = scale * jnp.array([[1.0, 0.0], [0.5, 1.0]])
        model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=lambda t, x, m=matrix: m)
        filtering.flow_prediction(model)


def test_a_likelihood_of_nan_is_seen():
    model = linear([[-1.0]]).state_space()
    seen = filtering.Sensor(lambda t, x, y: jnp.where(x[0] > 1, jnp.nan, 0.0) * y[0], model.sensor.draw)
    data = filtering.observations([0.5, 1.0, 1.5], [np.nan, 1.0, np.nan])
    method = filtering.particle_filter(model._replace(sensor=seen), 100, num_steps=1)
    found = filtering.assimilate(method, jax.random.key(0), data)
    np.testing.assert_array_equal(jnp.isnan(found.log_evidence), [False, True, True])
    np.testing.assert_array_equal(jnp.isnan(found.mean[:, 0]), [False, True, True])


def test_grids_hold_the_initial_law():
    law, sensor = measures.gaussian(jnp.array([3.0]), jnp.eye(1)), filtering.gaussian_sensor(1.0)
    model = filtering.state_space(law, sensor, drift=lambda t, x: -x, noise=1.0)
    for low, high in ((-5.0, 1.0), (-5.0, 5.0)):
        with pytest.raises(ValueError, match="initial law has mass"):
            filtering.grid_filter(model, low, high)
    with pytest.raises(ValueError, match="num_nodes"):
        filtering.grid_filter(model, -5.0, 9.0, num_nodes=2)
    # A jump of the density between nodes is no loss of mass.
    box = measures.uniform_box(jnp.zeros(1), jnp.ones(1))
    filtering.grid_filter(model._replace(initial=box), -5.0, 9.0, num_nodes=50)
