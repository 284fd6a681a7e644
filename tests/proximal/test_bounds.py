"""Terminal costs on measures of few points, where the divergences are sums."""

import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import numerics
from wfr_flows.proximal import f_bound, wasserstein_bound

P, Q = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.35, 0.25])
DIVERGENCES = [
    numerics.kl(),
    numerics.reverse_kl(),
    numerics.chi_squared(),
    numerics.jensen_shannon(),
    numerics.alpha_divergence(0.5),
    numerics.alpha_divergence(2.0),
    numerics.generalized_entropy(2.0),
]


def critic_of(divergence, value):
    """The ``u`` that stands for ``φ = value``."""
    edge = divergence.domain[1]
    return value if jnp.isinf(edge) else -jnp.log(jnp.expm1(edge - value))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_best_critic_gives_the_divergence_and_no_other_more(divergence):
    exact = jnp.sum(Q * divergence.generator(jnp.asarray(P / Q)))
    best = critic_of(divergence, divergence.slope(jnp.asarray(P / Q)))
    bound = f_bound(divergence)
    np.testing.assert_allclose(bound(best, best, weight_p=P, weight_q=Q), exact, rtol=1e-9)
    for change in (jnp.array([0.3, 0.0, -0.1]), jnp.array([-0.5, 0.2, 0.4])):
        other = best + change
        assert bound(other, other, weight_p=P, weight_q=Q) < exact


def test_wasserstein_bound_of_a_translation():
    place = jnp.array([0.0, 1.0, 5.0])
    np.testing.assert_allclose(wasserstein_bound(place + 2, place, weight_p=P, weight_q=P), 2.0)
