"""The Sinkhorn divergence: closed forms, an independent solver, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import scipy.special

from tests.helpers import numerical_gradient
from wfr_flows import measures, metrics

BLUR = 0.4


def divergence(a, b):
    return metrics.sinkhorn_divergence(a, b, blur=BLUR, tolerance=1e-13, max_iterations=3000).value


@pytest.fixture
def clouds():
    x, y = np.random.default_rng(0).normal(size=(2, 5, 2))
    return measures.particles(x, np.arange(5.0)), measures.particles(y + 1, [3.0, 1, 1, 2, 1])


def smoothed(a, b, blur=BLUR, method="sinkhorn"):
    """``OT_ε`` of POT: cost plus ``ε KL(γ|a⊗b)``."""
    a, b = (
        measures.Particles(
            np.asarray(m.position)[np.asarray(m.weight) > 0],
            np.asarray(m.log_weight)[np.asarray(m.weight) > 0],
        )
        for m in (a, b)
    )
    p, q = (
        np.exp(a.log_weight) / np.exp(a.log_weight).sum(),
        np.exp(b.log_weight) / np.exp(b.log_weight).sum(),
    )
    cost = 0.5 * ot.dist(a.position, b.position)
    plan = ot.sinkhorn(p, q, cost, blur**2, method=method, numItermax=20_000, stopThr=1e-12)
    return np.sum(plan * cost) + blur**2 * np.sum(scipy.special.rel_entr(plan, np.outer(p, q)))


def test_agrees_with_pot_on_weighted_clouds(clouds):
    a, b = clouds
    expected = smoothed(a, b) - 0.5 * smoothed(a, a) - 0.5 * smoothed(b, b)
    np.testing.assert_allclose(divergence(a, b), expected, rtol=1e-7)


def test_translations_and_identity(clouds):
    a, _ = clouds
    shift = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(divergence(a, a), 0.0, atol=1e-12)
    np.testing.assert_allclose(divergence(a, a._replace(position=a.position + shift)), 12.5, rtol=1e-5)


def test_gradients(clouds):
    a, b = clouds

    def of_positions(x):
        return divergence(a._replace(position=x), b)

    def of_weights(w):
        return divergence(a, b._replace(log_weight=w))

    slopes = jax.jit(jax.grad(divergence, (0, 1)))(a, b)
    found = slopes[0].position, slopes[1].log_weight
    for slope, function, at in zip(
        found, (of_positions, of_weights), (a.position, b.log_weight), strict=True
    ):
        np.testing.assert_allclose(slope, numerical_gradient(function, at), atol=1e-6)


def test_refusals(clouds):
    with pytest.raises(ValueError, match="blur"):
        metrics.sinkhorn_divergence(*clouds, blur=0.0)
    with pytest.raises(ValueError, match="dimension"):
        metrics.sinkhorn_divergence(clouds[0], measures.particles([0.0]))


def laws(num=60):
    x, y = np.random.default_rng(1).normal(size=(2, num, 2))
    return x, 1.3 * y + 0.5


@pytest.mark.slow
def test_defaults_converge_to_what_pot_finds_and_scale_with_the_unit():
    x, y = laws()
    a, b = measures.particles(x), measures.particles(y)
    found = metrics.sinkhorn_divergence(a, b)
    assert found.converged
    assert found.marginal_error < 5e-3
    across, *within = (smoothed(*pair, 0.05, "sinkhorn_log") for pair in ((a, b), (a, a), (b, b)))
    expected = across - 0.5 * sum(within)
    np.testing.assert_allclose(found.value, expected, rtol=1e-4)
    ten = metrics.sinkhorn_divergence(*(measures.particles(10 * z) for z in (x, y)), blur=0.5)
    np.testing.assert_allclose(ten.value, 100 * found.value, rtol=1e-9)


def test_what_has_not_converged_is_told():
    a, b = (measures.particles(z) for z in laws())
    few = metrics.sinkhorn_divergence(a, b, blur=0.005, max_iterations=20)
    assert not few.converged
    assert few.iterations == 20
    assert few.marginal_error > 5e-3


def test_far_from_zero_in_single_precision():
    x, y = (np.float32(z + 1e5) for z in laws())
    expected = metrics.sinkhorn_divergence(measures.particles(x), measures.particles(y), blur=BLUR)
    with jax.enable_x64(False):
        found = metrics.sinkhorn_divergence(measures.particles(x), measures.particles(y), blur=BLUR)
        assert found.converged
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
