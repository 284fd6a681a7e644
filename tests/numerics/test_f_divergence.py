"""The table of f-divergences: conjugates against the supremum, bounds against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import numerics

TABLE = {
    "kl": numerics.kl(),
    "reverse kl": numerics.reverse_kl(),
    "chi squared": numerics.chi_squared(),
    "alpha 1.5": numerics.alpha_divergence(1.5),
    "alpha 0.5": numerics.alpha_divergence(0.5),
    "alpha -1": numerics.alpha_divergence(-1.0),
    "jensen-shannon": numerics.jensen_shannon(),
    "entropy 2": numerics.generalized_entropy(2.0),
    "entropy 1.3": numerics.generalized_entropy(1.3),
}
every = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
RATIO = np.geomspace(1e-3, 30.0, 41)


@every
def test_slope_is_the_derivative_of_a_convex_generator(row):
    slopes = jax.vmap(jax.grad(row.generator))(jnp.asarray(RATIO))
    np.testing.assert_allclose(row.slope(jnp.asarray(RATIO)), slopes, rtol=1e-10, atol=1e-10)
    assert np.all(np.diff(slopes) > 0)


@every
def test_conjugate_is_the_supremum(row):
    grid = jnp.asarray(np.concatenate([[1e-14], np.geomspace(1e-9, 1e4, 40_001)]))
    inside = np.linspace(-3.0, min(row.domain[1] - 0.05, 1.5), 13)
    for y in inside:
        supremum = jnp.max(grid * y - row.generator(grid))
        np.testing.assert_allclose(row.conjugate(jnp.asarray(y)), supremum, rtol=1e-5, atol=1e-6)
    if np.isfinite(row.domain[1]):
        assert row.conjugate(jnp.asarray(row.domain[1] + 0.1)) == jnp.inf


@every
def test_dual_is_slope_and_conjugate_of_it(row):
    slope, conjugate = row.dual(jnp.log(RATIO))
    np.testing.assert_allclose(slope, row.slope(jnp.asarray(RATIO)), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(conjugate, row.conjugate(slope), rtol=1e-8, atol=1e-8)


@every
def test_bound_is_tight_at_the_ratio_and_below_elsewhere(row):
    # Two laws on 50 points: the divergence is a sum.
    keys = jax.random.split(jax.random.key(1), 3)
    p, q = (jax.nn.softmax(jax.random.normal(k, (50,))) for k in keys[:2])
    truth = jnp.sum(q * row.generator(p / q))
    log_ratio = jnp.log(p / q)

    def bound(u):
        return numerics.lower_bound(row, u, u, weight_p=p, weight_q=q)

    np.testing.assert_allclose(bound(log_ratio), truth, rtol=1e-10)
    assert bound(log_ratio + 0.1 * jax.random.normal(keys[2], (50,))) < truth
    np.testing.assert_allclose(jax.grad(bound)(log_ratio), 0.0, atol=1e-12)


def test_donsker_varadhan_is_the_best_shift_of_the_bound():
    keys = jax.random.split(jax.random.key(2), 2)
    on_p, on_q = jax.random.normal(keys[0], (40,)), jax.random.normal(keys[1], (60,))
    shifts = jnp.linspace(-3.0, 3.0, 60_001)
    bounds = jax.vmap(lambda c: numerics.lower_bound(numerics.kl(), on_p + c, on_q + c))(shifts)
    np.testing.assert_allclose(numerics.donsker_varadhan(on_p, on_q), jnp.max(bounds), atol=1e-8)


def test_relations_within_the_table():
    x = jnp.asarray(RATIO)
    np.testing.assert_allclose(
        2 * numerics.alpha_divergence(2.0).generator(x), numerics.chi_squared().generator(x), rtol=1e-9
    )
    np.testing.assert_allclose(
        numerics.generalized_entropy(1 + 1e-7).generator(x), numerics.kl().generator(x), atol=1e-4
    )
    assert numerics.kl().generator(jnp.zeros(())) == 0


def test_large_log_ratios_stay_finite_in_single_precision():
    u = jnp.asarray([-80.0, 0.0, 80.0], jnp.float32)
    assert jnp.all(jnp.isfinite(jnp.stack(numerics.jensen_shannon().dual(u))))


@pytest.mark.parametrize(
    "make", [lambda: numerics.alpha_divergence(1), lambda: numerics.generalized_entropy(1)]
)
def test_limits_are_refused(make):
    with pytest.raises(ValueError, match="kl"):
        make()
