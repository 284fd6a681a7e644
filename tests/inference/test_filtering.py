"""Filters against Kalman's, Kalman's against conditional Gaussians, and the contract that all share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats

from wfr_flows import dynamics, geodesics, measures, potentials
from wfr_flows.gradient_flows import Sample
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import (
    LinearGaussian,
    Observations,
    assimilate,
    flow_log_density,
    flow_prediction,
    grid_filter,
    kalman_filter,
    metropolis_filter,
    observations,
    particle_filter,
    rejuvenation,
    simulate,
    state_space,
    wfr_filter,
)
from wfr_flows.inference.filtering.kalman_filter import moments_after
from wfr_flows.inference.importance import reweighted

TIMES = np.array([0.4, 0.7, 1.5])
SEEN = np.array([[1.3], [0.2], [-0.8]])


MOMENTS = jax.jit(moments_after)


def linear(*parts):
    dtype = jnp.result_type(float)
    return LinearGaussian(*(jnp.asarray(np.asarray(part, dtype)) for part in parts))


def line_model():
    one = np.ones((1, 1))
    return linear(-0.8 * one, [0.3], 1.1 * one, one, 0.5 * one, [0.4], 0.7 * one)


def rotating_model():
    drift, noise = [[-0.3, 1.0], [-1.0, -0.3]], [[0.8, 0.0], [0.3, 0.5]]
    return linear(drift, [0.2, -0.1], noise, [[1.0, 0.5]], [[0.3]], np.zeros(2), np.eye(2))


def assimilated(method, data):
    """`assimilate` as one program, its result in arrays of NumPy."""
    found = jax.jit(lambda key, data: assimilate(method, key, data))(jax.random.key(0), data)
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def line():
    """The model, the data and the exact laws."""
    with jax.enable_x64(True):
        model, data = line_model(), observations(TIMES, SEEN)
        return model, data, assimilated(kalman_filter(model, 512), data)


@pytest.fixture(scope="module")
def flow(line):
    """A WFR filter that draws new particles at every observation, and the prediction behind it."""
    with jax.enable_x64(True):
        model = line[0].state_space()
        prediction = flow_prediction(
            model,
            potentials.icnn(1, width=2),
            num_steps=3,
            num_iterations=150,
            batch=512,
            order=2,
            optimiser=optax.adam(optax.cosine_decay_schedule(1e-2, 150)),
        )
        method = wfr_filter(model, prediction, num_particles=512, threshold=1.1)
        run = jax.jit(lambda key, data: assimilate(method, key, data))
        return method, prediction, run(jax.random.key(0), line[1])


def test_kalman_is_conditioning_of_the_joint_gaussian():
    model = rotating_model()
    dim, num = model.mean.size, len(TIMES)
    mean, covariance = np.array(model.mean), np.array(model.covariance)
    means, marginals, moves = [], [], []
    for step in np.diff(TIMES, prepend=0.0):
        # By quadrature, where the filter uses matrix exponentials of blocks.
        nodes, weights = np.polynomial.legendre.leggauss(30)
        at = 0.5 * step * (nodes + 1)
        flows = np.stack([scipy.linalg.expm(np.array(model.drift) * t) for t in at])
        spread = np.einsum(
            "k,kij,jl,kml->im", 0.5 * step * weights, flows, model.noise @ model.noise.T, flows
        )
        shift = np.einsum("k,kij,j->i", 0.5 * step * weights, flows, model.offset)
        move = scipy.linalg.expm(np.array(model.drift) * step)
        for found, expected in zip(MOMENTS(model, step), (move, shift, spread), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-10)
        mean, covariance = move @ mean + shift, move @ covariance @ move.T + spread
        means.append(mean), marginals.append(covariance), moves.append(move)
    joint = np.zeros((num * dim, num * dim))
    for i in range(num):
        cross = marginals[i]
        for j in range(i, num):
            if j > i:
                cross = cross @ moves[j].T
            rows, columns = slice(i * dim, (i + 1) * dim), slice(j * dim, (j + 1) * dim)
            joint[rows, columns], joint[columns, rows] = cross, cross.T
    see = np.kron(np.eye(num), model.observe)
    marginal = see @ joint @ see.T + np.kron(np.eye(num), model.error)
    seen_mean, seen = see @ np.concatenate(means), SEEN.ravel()
    gain = np.linalg.solve(marginal, see @ joint).T
    last_mean = (np.concatenate(means) + gain @ (seen - seen_mean))[-dim:]
    last_covariance = (joint - gain @ see @ joint)[-dim:, -dim:]
    found = assimilated(kalman_filter(model, 64), observations(TIMES, SEEN))
    np.testing.assert_allclose(found.mean[-1], last_mean, atol=1e-9)
    np.testing.assert_allclose(found.covariance[-1], last_covariance, atol=1e-9)
    evidence = scipy.stats.multivariate_normal.logpdf(seen, seen_mean, marginal)
    np.testing.assert_allclose(np.sum(found.log_evidence), evidence, atol=1e-9)


def test_grid_approaches_kalman_at_the_order_of_its_time_steps(line):
    model, data, exact = line
    general = model.state_space()
    errors = []
    for num_steps in (50, 100):
        found = assimilated(grid_filter(general, -6.0, 6.0, num_nodes=400, num_steps=num_steps), data)
        errors.append(abs(np.sum(found.log_evidence - exact.log_evidence)))
        np.testing.assert_allclose(found.mean, exact.mean, atol=0.3 / num_steps)
        np.testing.assert_allclose(found.covariance, exact.covariance, atol=0.6 / num_steps)
    assert 0.8 < np.log2(errors[0] / errors[1]) < 1.2


def test_grid_keeps_the_stationary_law():
    def potential(x):
        return jnp.sum(jnp.sin(2 * jnp.pi * x) / jnp.pi + x**2 / 4)

    x = np.linspace(-6, 6, 241)
    constant = jax.jit(lambda x: jax.nn.logsumexp(-jax.vmap(potential)(x)))(x[:, None]) + np.log(x[1] - x[0])
    law = measures.standard_normal(1)._replace(log_density=lambda x: -potential(x) - constant)
    model = state_space(law, filtering.gaussian_sensor(1.0), potential=potential)
    data = observations([3.0], [np.nan])
    found = assimilated(grid_filter(model, -6.0, 6.0, num_nodes=241, num_steps=20), data)
    expected = jax.jit(lambda x: jax.nn.log_softmax(-jax.vmap(potential)(x)))(x[:, None])
    # The scheme has the exponential of the midpoint rule of the drift as its stationary law.
    np.testing.assert_allclose(found.particles.log_weight[0], expected, atol=0.03)
    np.testing.assert_allclose(found.log_evidence, 0, atol=1e-12)


def test_gradient_of_the_evidence(line):
    _, data, _ = line

    def evidence(rate, method):
        one = jnp.ones((1, 1))
        model = line_model()._replace(drift=-rate * one)
        if method is kalman_filter:
            return jnp.sum(assimilate(kalman_filter(model, 4), jax.random.key(0), data).log_evidence)
        model = state_space(
            measures.gaussian(model.mean, model.covariance),
            filtering.gaussian_sensor(jnp.sqrt(0.5)),
            drift=lambda t, x: -rate * x + 0.3,
            noise=1.1,
        )
        method = grid_filter(model, -6.0, 6.0, num_nodes=200, num_steps=200)
        return jnp.sum(assimilate(method, jax.random.key(0), data).log_evidence)

    exact, grid = (
        jax.jit(jax.value_and_grad(partial(evidence, method=method)))
        for method in (kalman_filter, grid_filter)
    )
    _, slope = exact(0.8)
    np.testing.assert_allclose(slope, (exact(0.8001)[0] - exact(0.7999)[0]) / 0.0002, rtol=1e-6)
    np.testing.assert_allclose(grid(0.8)[1], slope, atol=0.01)


def test_particles_agree_with_kalman_within_their_noise_for_every_seed(line):
    model, data, exact = line
    method = particle_filter(model.state_space(), 2000, num_steps=8)
    keys = jax.random.split(jax.random.key(3), 16)
    found = jax.jit(jax.vmap(lambda key: assimilate(method, key, data)))(keys)
    found = jax.tree.map(np.asarray, found)
    weight = np.exp(found.particles.log_weight)
    means = np.sum(weight[..., None] * found.particles.position, axis=2)
    error = exact.standard_deviation / np.sqrt(np.min(found.effective_sample_size, axis=0))[:, None]
    assert np.max(np.abs(np.mean(means, axis=0) - np.asarray(exact.mean)) / np.asarray(error)) < 1.5
    ratio = np.exp(np.sum(found.log_evidence, axis=1) - np.sum(exact.log_evidence))
    assert abs(np.mean(ratio) - 1) < 4 * np.std(ratio) / 4 + 0.01
    np.testing.assert_allclose(np.sum(weight, axis=2), 1, rtol=1e-10)


def test_resampling_only_below_the_threshold(line):
    model, data, _ = line
    for threshold, expected in ((1.1, True), (0.0, False)):
        method = particle_filter(model.state_space(), 100, num_steps=2, threshold=threshold)
        assert np.all(assimilated(method, data).resampled == expected)


def test_the_flow_agrees_with_kalman(line, flow):
    _, _, exact = line
    _, _, found = flow
    np.testing.assert_allclose((found.mean - exact.mean) / exact.standard_deviation, 0, atol=0.02)
    np.testing.assert_allclose(found.covariance / exact.covariance, 1, atol=0.03)
    np.testing.assert_allclose(found.log_evidence, exact.log_evidence, atol=0.01)
    assert bool(jnp.all(found.resampled))


def test_the_density_of_the_flow_is_that_of_its_particles(line, flow):
    model, data, exact = line
    _, prediction, found = flow
    model = model.state_space()
    density = jax.jit(lambda x: flow_log_density(model, prediction, data, found, x))
    np.testing.assert_allclose(density(found.particles.position[-1]), found.log_density[-1], atol=1e-7)
    x = np.linspace(-4, 4, 512)[:, None]
    at = np.asarray(density(x))
    np.testing.assert_allclose(np.sum(np.exp(at)) * (x[1, 0] - x[0, 0]), 1, atol=0.01)
    law = scipy.stats.norm(np.asarray(exact.mean)[-1, 0], np.sqrt(np.asarray(exact.covariance)[-1, 0, 0]))
    divergence = np.sum(np.exp(at) * (at - law.logpdf(x[:, 0]))) * (x[1, 0] - x[0, 0])
    assert 0 < divergence + 0.01 < 0.02


def test_step_by_step_is_the_loop(line, flow):
    _, data, _ = line
    method, _, found = flow
    start_key, key = jax.random.split(jax.random.key(0))
    state, step = method.init(start_key), jax.jit(method.step)
    data = jax.tree.map(np.asarray, data)
    for index, one in enumerate(jax.random.split(key, 3)):
        state, law = step(one, state, jax.tree.map(lambda leaf, k=index: jnp.asarray(leaf[k]), data))
    np.testing.assert_allclose(law.log_evidence, found.log_evidence[-1], atol=1e-6)


def test_chains_follow_the_weights():
    log_weight = jnp.asarray(np.append(np.log([1.0, 4.0, 3.0]), -np.inf)[[0, 1, 3, 2]])
    run = jax.jit(lambda key: filtering.metropolis_hastings(key, log_weight, 4000, 60))
    chosen, accepted = map(np.asarray, run(jax.random.key(0)))
    share = np.bincount(chosen, minlength=4) / 4000
    np.testing.assert_allclose(share, np.array([1, 4, 0, 3]) / 8, atol=0.03)
    # Two draws of the stationary law and of the pool: the mean of min(1, w(y)/w(x)).
    weight = np.array([1.0, 4.0, 0.0, 3.0])
    expected = np.sum(np.minimum(weight[:, None], weight[None])) / 8 / 4
    np.testing.assert_allclose(np.mean(accepted[20:]), expected, atol=0.01)


def test_metropolis_filter_agrees_with_kalman(line, flow):
    model, data, exact = line
    method = metropolis_filter(model.state_space(), flow[1], num_particles=4096, num_chains=1024, warm_up=100)
    found = jax.jit(lambda key: assimilate(method, key, data))(jax.random.key(1))
    error = np.asarray(exact.standard_deviation) / 32
    assert np.max(np.abs(np.asarray(found.mean) - np.asarray(exact.mean)) / error) < 5
    np.testing.assert_allclose(found.log_evidence, exact.log_evidence, atol=0.05)
    general = model.state_space()
    density = jax.jit(lambda found, x: flow_log_density(general, flow[1], data, found, x))
    at = density(found, np.asarray(found.particles.position)[-1, :20])
    np.testing.assert_allclose(at, np.asarray(found.log_density)[-1, :20], atol=1e-6)


def test_a_drift_without_potential_is_split_and_inverted():
    model = rotating_model().state_space()
    assert model.potential is None
    prediction = flow_prediction(
        model, potentials.icnn(2, width=2), num_steps=2, num_iterations=60, batch=256
    )
    particles = model.initial.spread(jax.random.key(0), 256)
    start = jax.vmap(model.initial.log_density)(particles.position)
    sample = Sample(particles, start)

    @jax.jit
    def there_and_back(key):
        params = prediction.init(key)
        _, maps = prediction.learn(key, params, sample, jnp.array(0.0), jnp.array(0.5))
        after = prediction.carry(maps, sample, jnp.array(0.0), jnp.array(0.5))
        return after, prediction.carry_back(maps, after.particles.position, jnp.array(0.0), jnp.array(0.5))

    after, (before, log_det) = there_and_back(jax.random.key(1))
    # Half steps of Runge-Kutta backward undo those forward up to their error.
    np.testing.assert_allclose(before, particles.position, atol=1e-5)
    np.testing.assert_allclose(start - log_det, after.log_density, atol=1e-5)
    move, shift, spread = map(np.asarray, MOMENTS(rotating_model(), 0.5))
    mean, covariance = measures.moments(after.particles)
    np.testing.assert_allclose(mean, shift, atol=0.03)
    np.testing.assert_allclose(covariance, move @ move.T + spread, atol=0.06)


@pytest.mark.parametrize("dim", [2, 20])
def test_new_particles_are_of_the_posterior(dim):
    """Evenly spread in few dimensions, at random in many; exact where everything is Gaussian."""
    predicted = measures.standard_normal(dim).spread(jax.random.key(0), 1000)

    def log_likelihood(x):
        return jax.scipy.stats.norm.logpdf(x[:, 0], 1.0, 0.5)

    updated, _ = jax.jit(lambda predicted: reweighted(predicted, log_likelihood(predicted.position)))(
        predicted
    )
    renew = jax.jit(lambda key: rejuvenation.rejuvenated(key, predicted, updated, log_likelihood))
    new, log_evidence = renew(jax.random.key(1))
    even = new.particles.effective_sample_size > 0.6 * 1000
    tolerance = 0.02 if dim == 2 else 0.2
    assert bool(even) or dim == 20
    mean, covariance = measures.moments(new.particles)
    np.testing.assert_allclose(mean, [0.8] + [0] * (dim - 1), atol=tolerance)
    np.testing.assert_allclose(jnp.diag(covariance), [0.2] + [1] * (dim - 1), atol=2 * tolerance)
    np.testing.assert_allclose(log_evidence, scipy.stats.norm.logpdf(1.0, 0, 1.25**0.5), atol=tolerance)

    @jax.jit
    def log_density(x):
        kernels = rejuvenation.kernels(predicted)
        factor = kernels.whitening.factor
        law = measures.mixture(
            kernels.centres.weight,
            kernels.whitening.back(kernels.centres.position),
            jnp.tile(kernels.width**2 * factor @ factor.T, (1000, 1, 1)),
        )
        return jax.vmap(law.log_density)(x) + log_likelihood(x) - log_evidence

    few = jax.tree.map(lambda leaf: np.asarray(leaf)[:5], new)
    np.testing.assert_allclose(log_density(few.particles.position), few.log_density, rtol=1e-6)


def test_learned_densities_follow_the_observations(line):
    model, data, exact = line
    generator = geodesics.generator(
        potentials.resnet(1, width=8),
        dynamics.Geometry(2.0),
        num_pairs=100,
        matching_steps=200,
        refinement_steps=0,
        num_steps=4,
    )
    data = Observations(data.time[:2], data.value[:2])
    found, learned = filtering.generative_filter(
        jax.random.key(0), model.state_space(), data, generator, num_particles=1000, num_steps=5
    )
    assert len(learned) == 2
    np.testing.assert_allclose(found.mean, exact.mean[:2], atol=0.1)
    evidence = np.sum(np.asarray(found.log_evidence))
    np.testing.assert_allclose(evidence, np.sum(exact.log_evidence[:2]), atol=0.15)
    assert np.all(np.isfinite(found.log_density))


def test_nothing_seen_and_nothing_possible():
    model = line_model().state_space()
    blind = model._replace(sensor=model.sensor._replace(log_likelihood=lambda t, x, y: jnp.log(0.0 * y[0])))
    method = particle_filter(blind, 50, num_steps=2)
    found = assimilated(method, observations([0.5, 1.0], [np.nan, 1.0]))
    np.testing.assert_array_equal(found.log_evidence, [0.0, -np.inf])
    np.testing.assert_allclose(np.sum(np.exp(found.particles.log_weight), axis=1), 1, rtol=1e-12)


def test_a_simulated_path_has_the_law_of_the_model():
    model = line_model()
    times, general = jnp.array([0.4, 1.5]), model.state_space()
    run = jax.jit(jax.vmap(lambda key: simulate(key, general, times, num_steps=10)))
    states, data = jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), 4000)))
    for index, time in enumerate((0.4, 1.5)):
        move, shift, spread = map(np.asarray, MOMENTS(model, time))
        variance = float(move[0, 0] ** 2 * 0.7 + spread[0, 0])
        x, y = states[:, index, 0], data.value[:, index, 0]
        assert abs(np.mean(x) - (move[0, 0] * 0.4 + shift[0])) < 4 * np.sqrt(variance / 4000)
        np.testing.assert_allclose(np.var(x), variance, rtol=0.1)
        np.testing.assert_allclose(np.var(y - x), 0.5, rtol=0.1)


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        method = particle_filter(line_model().state_space(), 20, num_steps=1)
        found = assimilated(method, observations(TIMES, SEEN))
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32"), np.dtype("bool")}


@pytest.mark.parametrize(
    ("time", "value", "said"),
    [
        ([1.0, 0.5], [0.0, 0.0], "increase"),
        ([0.0], [1.0], "start"),
        ([1.0], [[np.nan, 1.0]], "in part"),
        ([1.0], [np.inf], "infinite"),
        ([], np.zeros((0, 1)), "no observations"),
        ([1.0, 2.0], [1.0], "fit"),
        ([1.0], ["a"], "numbers"),
    ],
)
def test_observations_are_checked(time, value, said):
    with pytest.raises(ValueError, match=said):
        observations(time, value)


def test_models_and_filters_are_checked():
    law, sensor = measures.standard_normal(2), filtering.gaussian_sensor(1.0)

    def drift(t, x):
        return -x

    for options, said in (
        ({}, "either"),
        ({"drift": drift}, "noise"),
        ({"potential": jnp.sum, "noise": 1.0}, "temperature"),
        ({"drift": drift, "noise": np.ones(3)}, r"noise has shape|Incompatible"),
    ):
        with pytest.raises(ValueError, match=said):
            state_space(law, sensor, **options)
    flat = state_space(law, sensor, drift=drift, noise=np.ones((2, 1)))
    with pytest.raises(ValueError, match="square"):
        flow_prediction(flat)
    with pytest.raises(ValueError, match="dimension 2"):
        grid_filter(flat, -1.0, 1.0)
    with pytest.raises(ValueError, match="low"):
        grid_filter(line_model().state_space(), 1.0, -1.0)
    with pytest.raises(ValueError, match="num_particles"):
        particle_filter(flat, 0)
    with pytest.raises(ValueError, match="dimension"):
        kalman_filter(rotating_model(), 2)
    unknown = flat._replace(initial=measures.empirical(law.sample(jax.random.key(0), 5)))
    with pytest.raises(ValueError, match="density"):
        wfr_filter(unknown, None)
