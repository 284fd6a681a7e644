"""Distances between weighted samples: closed forms, SciPy and POT, what weights mean, derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional_difference, numerical_gradient, random_like, single_precision

from wfr_flows.measures import Particles, moments, particles
from wfr_flows.metrics import energy_distance, kernel_density, mmd, samples, sliced_wasserstein
from wfr_flows.numerics import blocks as numerics_blocks

KEY = jax.random.key(3)
REPEATABLE = {
    "energy": energy_distance,
    "mmd-diagonal": partial(mmd, scale=1.3, unbiased=False),
    "sliced": partial(sliced_wasserstein, KEY, num_projections=16),
}
"""A weight of 2 is two particles."""
DISTANCES = REPEATABLE | {"energy-unbiased": partial(energy_distance, unbiased=True), "mmd": mmd}

every = pytest.mark.parametrize("name", DISTANCES)
repeatable = pytest.mark.parametrize("name", REPEATABLE)


@jax.jit
def _all(a, b):
    """Values and derivatives of every distance: one program of a shape for all tests."""
    return {name: jax.value_and_grad(distance, (0, 1))(a, b) for name, distance in DISTANCES.items()}


def _without_jit(distance):
    if isinstance(distance, partial):
        return partial(_without_jit(distance.func), *distance.args, **distance.keywords)
    return getattr(distance, "__wrapped__", distance)


def _value(name, a, b):
    return _all(a, b)[name][0]


def _gradients(name, a, b):
    return _all(a, b)[name][1]


def _clouds(n=9, m=7, dim=2):
    random = np.random.default_rng(0)
    a = particles(random.normal(size=(n, dim)), random.uniform(0.2, 2.0, n))
    return a, particles(random.normal(size=(m, dim)) + 0.5, random.uniform(0.2, 2.0, m))


def _assert_unbiased(distance, draw, expected, repeats=400):
    """The mean over independent samples lies within four standard errors of the distance of the laws."""
    values = jax.jit(jax.vmap(lambda key: distance(*draw(key))))(jax.random.split(KEY, repeats))
    error = np.std(values) / np.sqrt(repeats)
    assert abs(np.mean(values) - expected) < 4 * error
    assert error < 0.05 * expected


def _draw_gaussians(key, dim, shift, scale):
    """Samples of ``N(0, I)`` and ``N(shift, scale² I)`` with weights that know nothing of positions."""
    first, second = jax.random.split(key)
    log_weights = (jnp.linspace(-1.0, 1.0, 40), jnp.linspace(-0.5, 0.5, 30))
    a = Particles(jax.random.normal(first, (40, dim)), log_weights[0])
    return a, Particles(shift + scale * jax.random.normal(second, (30, dim)), log_weights[1])


def test_energy_distance_of_gaussians_on_the_line():
    shift, scale = 1.5, 0.5

    def mean_distance(delta, deviation):
        return deviation * np.sqrt(2 / np.pi) * np.exp(-0.5 * (delta / deviation) ** 2) + delta * (
            1 - 2 * scipy.stats.norm.cdf(-delta / deviation)
        )

    expected = 2 * mean_distance(shift, np.sqrt(1 + scale**2))
    expected -= mean_distance(0.0, np.sqrt(2)) + mean_distance(0.0, np.sqrt(2) * scale)
    draw = partial(_draw_gaussians, dim=1, shift=shift, scale=scale)
    _assert_unbiased(DISTANCES["energy-unbiased"], draw, expected)


def test_mmd_of_gaussians():
    dim, shift, scale, length = 3, 0.7, 1.5, 2.0

    def mean_kernel(squared, variance):
        widened = length**2 + 2 * variance
        return (length**2 / widened) ** (dim / 2) * np.exp(-squared / widened)

    expected = mean_kernel(0.0, 2.0) + mean_kernel(0.0, 2 * scale**2)
    expected -= 2 * mean_kernel(dim * shift**2, 1 + scale**2)
    draw = partial(_draw_gaussians, dim=dim, shift=shift, scale=scale)
    _assert_unbiased(partial(mmd, scale=length), draw, expected)


@pytest.mark.parametrize("dim", [1, 2, 10])
def test_sliced_wasserstein_of_a_translate(dim):
    a, _ = _clouds(dim=dim)
    shift = np.linspace(1.0, 2.0, dim)
    squared, num = shift @ shift, 400
    value = sliced_wasserstein(KEY, a, a._replace(position=a.position + shift), num_projections=num)
    # (θ·s)² has mean |s|²/d and second moment 3|s|⁴/(d(d+2)).
    deviation = squared * np.sqrt(max(3 / (dim * (dim + 2)) - 1 / dim**2, 0.0))
    np.testing.assert_allclose(value, squared / dim, rtol=1e-6, atol=4 * deviation / np.sqrt(num))


def test_energy_distance_equals_scipy():
    a, b = _clouds(dim=1)
    expected = scipy.stats.energy_distance(a.position[:, 0], b.position[:, 0], a.weight, b.weight)
    np.testing.assert_allclose(energy_distance(a, b), expected**2, rtol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(9, 7), (1, 5), (8, 8)])
@pytest.mark.parametrize("dim", [1, 3])
def test_sliced_wasserstein_equals_pot(n, m, dim):
    ot = pytest.importorskip("ot")
    a, b = _clouds(n, m, dim)
    a, b = a.normalise(), b.normalise()
    directions = samples._directions(KEY, 16, dim)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-6)
    expected = ot.sliced_wasserstein_distance(
        *(np.asarray(x) for x in (a.position, b.position, a.weight, b.weight)),
        projections=np.asarray(directions, float).T,
    )
    np.testing.assert_allclose(DISTANCES["sliced"](a, b), expected**2, rtol=1e-10)


def test_mmd_equals_sums_over_pairs():
    a, b = (measure._replace(log_weight=jnp.zeros(measure.log_weight.size)) for measure in _clouds())

    def kernels(x, y):
        x, y = np.asarray(x.position), np.asarray(y.position)
        return np.exp(-((x[:, None] - y) ** 2).sum(axis=-1))

    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernels(a, a), kernels(b, b)))
    np.testing.assert_allclose(_value("mmd", a, b), within - 2 * kernels(a, b).mean(), rtol=1e-12)


def _repeated(measure):
    """Twelve particles of weight 1, and as few as stand there instead with the weight of how often."""
    count = np.arange(12) % len(measure.log_weight)
    _, times = np.unique(count, return_counts=True)
    return particles(np.asarray(measure.position)[count], np.ones(12)), measure._replace(
        log_weight=jnp.log(times)
    )


@repeatable
def test_a_weight_means_repetition(name):
    a, b = _clouds()
    repeated, weighted = _repeated(a)
    np.testing.assert_allclose(_value(name, weighted, b), _value(name, repeated, b), rtol=1e-11)


@repeatable
def test_equal_measures_are_at_distance_zero_and_others_are_not(name):
    a, b = _clouds()
    repeated, weighted = _repeated(b)
    order = np.random.default_rng(1).permutation(12)
    shuffled = Particles(repeated.position[order], repeated.log_weight[order])
    np.testing.assert_allclose(_value(name, shuffled, weighted), 0, atol=1e-14)
    assert _value(name, a, b) > 0.01


def test_order_of_particles_order_of_measures_and_mass_do_not_count():
    a, b = _clouds()
    order = np.random.default_rng(1).permutation(9)
    shuffled = Particles(a.position[order], a.log_weight[order] + 5.0)
    both_ways = jax.jit(lambda a, b: {name: (f(a, b), f(b, a)) for name, f in DISTANCES.items()})
    expected, found = both_ways(a, b), both_ways(shuffled, b)
    for name, (value, back) in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, err_msg=name)
        np.testing.assert_allclose(back, value, rtol=1e-11, err_msg=name)


@every
def test_particles_of_weight_zero_do_not_count(name):
    a, b = _clouds()
    ghosts = np.array([[1e8, 1e8], [-1e8, 0.0], [np.nan, 0.0]])
    haunted = Particles(
        jnp.asarray(np.concatenate([a.position, ghosts])),
        jnp.asarray(np.concatenate([a.log_weight, np.full(3, -np.inf)])),
    )
    (value, (gradient, _)), (alone, (gradient_alone, _)) = _all(haunted, b)[name], _all(a, b)[name]
    np.testing.assert_allclose(value, alone, rtol=1e-11)
    np.testing.assert_allclose(gradient.position[:9], gradient_alone.position, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(gradient.position[9:], 0)
    assert np.isfinite(gradient.log_weight).all()


@every
def test_derivatives_equal_differences(name):
    a, b = _clouds()
    gradients = _gradients(name, a, b)
    for gradient, measure, value in (
        (gradients[0], a, lambda moved: _value(name, moved, b)),
        (gradients[1], b, lambda moved: _value(name, a, moved)),
    ):
        for field in measure._fields:
            expected = numerical_gradient(
                lambda x, field=field, m=measure, f=value: f(m._replace(**{field: x})),
                getattr(measure, field),
            )
            np.testing.assert_allclose(getattr(gradient, field), expected, rtol=1e-6, atol=1e-9)


def test_second_derivatives_equal_differences():
    a, b = _clouds()
    direction = random_like(KEY, a)
    slopes = [jax.grad(distance) for distance in DISTANCES.values()]
    curved = jax.jit(lambda a: [jax.jvp(lambda a, f=f: f(a, b), (a,), (direction,))[1] for f in slopes])(a)
    expected = directional_difference(
        lambda a: [_gradients(name, a, b)[0] for name in DISTANCES], a, direction
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8), curved, expected)


@every
def test_derivatives_are_finite_where_points_coincide_and_in_single_precision(name):
    a, b = _clouds()
    pair = single_precision((a, b))
    value, gradient = _all(*pair)[name]
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(value, _value(name, a, b), rtol=2e-5)
    same = pair[0]._replace(position=jnp.zeros((9, 2), jnp.float32))
    value, gradient = _all(same, pair[1]._replace(position=same.position[:7]))[name]
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_blocks_change_nothing(monkeypatch):
    a, b = _clouds()
    # In functions of their own, which find no program of another size of blocks.
    slopes = {name: jax.value_and_grad(_without_jit(f), (0, 1)) for name, f in DISTANCES.items()}
    # Random directions, in single precision, are rounded as a program likes: two alike for them.
    whole = _all(a, b) | {"sliced": jax.jit(slopes["sliced"])(a, b)}
    # Three points at a time, and four directions.
    monkeypatch.setattr(samples, "_NUMBERS_PER_PAIR", 1)
    monkeypatch.setattr(numerics_blocks, "_BLOCK", 3 * 9)
    monkeypatch.setattr(samples, "_AT_ONCE", 5 * 16)
    blocks = {name: jax.jit(lambda a, b, f=f: f(a, b))(a, b) for name, f in slopes.items()}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13), blocks, whole)


def test_memory_of_the_gradient_is_linear():
    size = 50_000
    shapes = Particles(
        jax.ShapeDtypeStruct((size, 2), jnp.float32), jax.ShapeDtypeStruct((size,), jnp.float32)
    )
    slopes = jax.jit(lambda a, b: [jax.grad(distance)(a, b) for distance in DISTANCES.values()])
    used = slopes.lower(shapes, shapes).compile().memory_analysis().temp_size_in_bytes
    # All pairs of one distance would take 10 GB.
    assert used < 1e8


@every
def test_two_dimensions_are_refused(name):
    a, b = _clouds(dim=2)[0], _clouds(dim=3)[1]
    with pytest.raises(ValueError, match="dimension"):
        DISTANCES[name](a, b)


def test_no_projection_is_refused():
    with pytest.raises(ValueError, match="num_projections"):
        sliced_wasserstein(KEY, *_clouds(), num_projections=0)


def test_a_measure_on_one_particle_counts_as_that_point():
    one, b = _clouds(n=1)
    heavy = Particles(
        jnp.tile(one.position, (12, 1)) + 1.0, jnp.asarray(np.where(np.arange(12) == 5, 0.0, -800.0))
    )
    alone = Particles(one.position + 1.0, jnp.zeros(1))
    x, y, w = (np.asarray(z) for z in (alone.position, b.position, b.normalise().weight))
    across = np.linalg.norm(x - y, axis=1)
    inner = np.linalg.norm(y[:, None] - y, axis=2)
    rest = 1 - np.sum(w**2)
    kernels = 1 + (np.sum(np.outer(w, w) * np.exp(-(inner**2))) - np.sum(w**2)) / rest
    expected = kernels - 2 * w @ np.exp(-(across**2)), 2 * w @ across - w @ inner @ w / rest
    few = {name: DISTANCES[name] for name in ("mmd", "energy-unbiased")}
    of_one = jax.jit(lambda a, b: {name: jax.value_and_grad(f, (0, 1))(a, b) for name, f in few.items()})
    for measure, every in ((heavy, _all), (alone, of_one)):
        found = every(measure, b)
        values, slopes = zip(found["mmd"], found["energy-unbiased"], strict=True)
        np.testing.assert_allclose(values, expected, rtol=1e-10)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_digits_far_from_zero_in_single_precision():
    """Against the same rounded positions in double precision."""
    x, y = np.random.default_rng(0).normal(size=(2, 300, 2)) + 1e5
    x, y = np.float32(x), np.float32(1.2 * (y - 1e5) + 1e5)
    distances = {
        "energy": energy_distance,
        "unbiased": lambda a, b: energy_distance(a, b, unbiased=True),
        "mmd": lambda a, b: mmd(a, b, scale=0.7),
        "sliced": lambda a, b: sliced_wasserstein(KEY, a, b, num_projections=8),
        "kernels": lambda a, b: kernel_density(a)(b.position[0]),
        "spread": lambda a, b: moments(a)[1][0, 1],
    }
    every = jax.jit(lambda a, b: {name: function(a, b) for name, function in distances.items()})
    expected = every(particles(x), particles(y))
    with jax.enable_x64(False):
        found = every(particles(x), particles(y))
    for name in distances:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-6, err_msg=name)
