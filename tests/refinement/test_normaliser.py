"""The mass of energy models, against Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import measures, refinement


def ratio_to(shift, mass):
    """``log mass N(shift, I)/N(0, I)``."""
    return lambda x: shift * x[0] - 0.5 * shift**2 + jnp.log(mass)


def test_the_mass_of_a_model_near_its_base(key):
    base = measures.standard_normal(3)
    for mass in (1.0, 2.0):
        found = refinement.annealed_normaliser(key, base, ratio_to(0.5, mass), num_levels=1, num_samples=8192)
        np.testing.assert_allclose(found.log_mass, np.log(mass), atol=0.03)
        # One level is importance sampling: E w² / (E w)² = exp(shift²).
        np.testing.assert_allclose(found.effective_sample_size, 8192 * np.exp(-0.25), rtol=0.05)


def test_annealing_finds_mass_where_the_base_has_no_samples(key):
    base = measures.standard_normal(3)
    far = ratio_to(6.0, 2.0)
    blind = refinement.annealed_normaliser(key, base, far, num_levels=1, num_samples=500)
    found = refinement.annealed_normaliser(key, base, far, num_levels=200, num_samples=500)
    assert blind.log_mass < -1.0
    np.testing.assert_allclose(found.log_mass, np.log(2.0), atol=0.3)
    assert found.effective_sample_size > 20 * blind.effective_sample_size
    assert 0.4 < found.acceptance < 0.9


def test_the_base_may_be_narrow(key):
    base = measures.gaussian([3.0], [[0.01]])
    found = jax.jit(lambda key: refinement.annealed_normaliser(key, base, lambda x: 10 * (x[0] - 3.0)))(key)
    np.testing.assert_allclose(found.log_mass, 0.5, atol=0.1)


def test_what_cannot_be_weighed_is_refused(key):
    normal = measures.standard_normal(1)
    with pytest.raises(ValueError, match="at least 1"):
        refinement.annealed_normaliser(key, normal, lambda x: x[0], num_levels=0)
    with pytest.raises(ValueError, match="log_density"):
        refinement.annealed_normaliser(key, normal._replace(log_density=None), lambda x: x[0])
