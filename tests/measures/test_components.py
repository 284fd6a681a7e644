"""Principal components: the directions, how many stand out, what stays with a point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.measures import Particles, equally_weighted, principal_components


def planted(size=120, dim=60, rank=3):
    """``rank`` directions of deviation 3 in noise of deviation .1."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(dim, rank)))[0]
    points = 3 * rng.normal(size=(size, rank)) @ basis.T + 0.1 * rng.normal(size=(size, dim)) + 5.0
    return jnp.asarray(points), basis


@pytest.mark.parametrize(("size", "dim"), [(120, 60), (60, 200)])
def test_what_stands_out_of_noise_is_found(size, dim):
    points, basis = planted(size, dim)
    found = principal_components(equally_weighted(points)).basis
    assert found.shape == (dim, 3)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-5)
    # Sines of the angles between the two spaces.
    apart = basis - found @ (found.T @ basis)
    assert np.linalg.norm(apart, 2) < 0.1


def test_a_weight_is_a_repetition():
    points = planted()[0]
    doubled = Particles(jnp.concatenate([points, points[:40]]), jnp.zeros(160))
    weighted = Particles(points, jnp.log(jnp.where(jnp.arange(120) < 40, 2.0, 1.0)))
    one, other = (principal_components(m, 3) for m in (doubled, weighted))
    np.testing.assert_allclose(one.center, other.center, rtol=1e-5)
    np.testing.assert_allclose(one.basis @ one.basis.T, other.basis @ other.basis.T, atol=1e-4)


def test_the_rest_stays_with_a_point():
    points = planted()[0]
    components = principal_components(equally_weighted(points), 2)
    scores = components.scores(points)
    np.testing.assert_allclose(components.moved(points, scores), points, atol=1e-4)
    shifted = jax.jit(components.moved)(points, scores + 1.0)
    np.testing.assert_allclose(components.scores(shifted), scores + 1.0, atol=1e-4)
    assert components.moved(points, jnp.stack([scores, scores])).shape == (2, 120, 60)


@pytest.mark.parametrize("num", [0, 61])
def test_a_number_that_makes_no_sense_is_refused(num):
    with pytest.raises(ValueError, match="from 1 to 60"):
        principal_components(equally_weighted(planted()[0]), num)
    assert principal_components(equally_weighted(planted(20)[0]), 60).basis.shape == (60, 60)


def test_traced_particles_have_the_same_components():
    sample = equally_weighted(planted()[0])
    found = jax.jit(lambda measure: principal_components(measure, 3))(sample)
    expected = principal_components(sample, 3)
    np.testing.assert_allclose(found.center, expected.center, rtol=1e-6)
    np.testing.assert_allclose(found.basis @ found.basis.T, expected.basis @ expected.basis.T, atol=1e-6)
    with pytest.raises(ValueError, match="num is not given"):
        jax.jit(principal_components)(sample)
