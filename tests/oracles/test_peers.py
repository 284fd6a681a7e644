"""Static WFR against other people's solvers of the same problem: POT and, where installed, OTT-JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.measures import particles
from wfr_flows.static import dual_bound, plan_cost, wfr

CASES = pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 3.0])
"""From a fifth of the pairs in reach, and particles without any partner, to all pairs."""

FAR = 100.0
_fine = jax.jit(partial(wfr, tolerance=1e-6))
_lower = jax.jit(dual_bound)
_upper = jax.jit(plan_cost)


def _problem(n=16, m=20):
    random = np.random.default_rng(0)
    source = particles(random.normal(size=(n, 2)), random.uniform(0.5, 1.5, n) / n)
    target = particles(0.7 * random.normal(size=(m, 2)) + 0.5, random.uniform(1.0, 3.0, m) / m)
    return source, target


def _weights(source, target):
    return np.asarray(source.weight), np.asarray(target.weight)


def _cost(source, target, alpha):
    """The cost of log-entropy transport, finite where it should be infinite: so far, no mass goes there."""
    x, y = np.asarray(source.position), np.asarray(target.position)
    angle = np.linalg.norm(x[:, None] - y[None], axis=-1) / (2 * np.sqrt(alpha))
    near = angle < np.pi / 2
    return np.where(near, -4 * alpha * np.log(np.cos(np.where(near, angle, 0.0))), FAR * alpha)


def _primal(plan, source, target, alpha):
    def divergence(p, q):
        return np.sum(p * np.log(np.where(p > 0, p / q, 1.0)) - p + q)

    mu, nu = _weights(source, target)
    misfit = divergence(plan.sum(axis=1), mu) + divergence(plan.sum(axis=0), nu)
    return np.sum(plan * _cost(source, target, alpha)) + 2 * alpha * misfit


def _majorise(ot, source, target, alpha, iterations=8000):
    return ot.unbalanced.mm_unbalanced(
        *_weights(source, target),
        _cost(source, target, alpha),
        reg_m=2 * alpha,
        numItermax=iterations,
        stopThr=0.0,
    )


def _quasi_newton(ot, source, target, alpha):
    # From the product of the weights it can stall where rows become empty.
    return ot.unbalanced.lbfgsb_unbalanced(
        *_weights(source, target),
        _cost(source, target, alpha),
        reg=0.0,
        reg_m=2 * alpha,
        G0=_majorise(ot, source, target, alpha, iterations=1000),
        numItermax=1000,
        stopThr=0.0,
    )


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
@pytest.mark.parametrize("solve", [_majorise, _quasi_newton])
@CASES
def test_value_is_the_limit_of_pot(solve, alpha):
    ot = pytest.importorskip("ot")
    source, target = _problem()
    result = _fine(source, target, alpha)
    assert result.converged
    plan = solve(ot, source, target, alpha)
    theirs = _primal(plan, source, target, alpha)
    # Any plan is an upper bound on the truth; its semi-coupling is a better one.
    assert theirs >= result.lower_bound * (1 - 1e-9)
    np.testing.assert_allclose(theirs, result.value, rtol=1e-5)
    semi_coupling = _upper(jnp.asarray(plan), source, target, alpha)
    assert result.lower_bound * (1 - 1e-9) <= semi_coupling <= theirs * (1 + 1e-9)


@CASES
def test_potentials_of_pot_prove_the_value(alpha):
    ot = pytest.importorskip("ot")
    source, target = _problem()
    result = _fine(source, target, alpha)
    plan = _majorise(ot, source, target, alpha)
    share = np.maximum(plan.sum(axis=1) / np.asarray(source.weight), 1e-12)
    lower = _lower(jnp.asarray(-2 * alpha * np.log(share)), source, target, alpha)
    assert lower <= result.value * (1 + 1e-9)
    np.testing.assert_allclose(lower, result.value, rtol=1e-3)


@CASES
def test_bounds_from_ott_enclose_the_value(alpha):
    pytest.importorskip("ott")
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    source, target = _problem()
    result = _fine(source, target, alpha)
    epsilon = 1e-3 * alpha
    tau = 2 * alpha / (2 * alpha + epsilon)
    cost = jnp.asarray(_cost(source, target, alpha))

    @jax.jit
    def solve(cost, mu, nu):
        problem = LinearProblem(Geometry(cost, epsilon=epsilon), mu, nu, tau_a=tau, tau_b=tau)
        found = Sinkhorn(threshold=1e-6, max_iterations=20_000, recenter_potentials=True)(problem)
        return found.matrix, found.f

    plan, potential = solve(cost, source.weight, target.weight)
    lower, upper = _lower(potential, source, target, alpha), _upper(plan, source, target, alpha)
    assert lower <= result.value * (1 + 1e-9)
    assert upper >= result.lower_bound * (1 - 1e-9)
    np.testing.assert_allclose([lower, upper], result.value, rtol=1e-2)
