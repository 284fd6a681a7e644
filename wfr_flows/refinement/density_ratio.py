"""Density ratios by telescoping: many easy classifications along a bridge instead of one hard one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wfr_flows.measures import Distribution, Particles
from wfr_flows.numerics import built_each, entry
from wfr_flows.potentials import Potential
from wfr_flows.refinement.logistic import logistic_loss
from wfr_flows.training import Method, gradient_method
from wfr_flows.typing import Array, Float, Key, Params, Scalar

LogRatio = Callable[[Params, Float[Array, " d"]], Scalar]
"""``(params, x: [d]) -> log q/p``."""


def density_ratio(
    ratio: Potential,
    time: Float[Array, " k"],
    optimiser: optax.GradientTransformation,
    *,
    num_nodes: int = 3,
    average_decay: float = 0.0,
) -> Method:
    """Logistic regression on every interval of a bridge at once ([QF]; the rate as in Choi et al., 2022).

    A network ``r(t, x)`` stands for ``∂ₜ log p_t(x)``. On the interval ``k`` the log-ratio of its ends is
    ``R_k(x) = ∫ r(t, x) dt``, and the loss is the sum over intervals of `logistic_loss` of ``R_k`` between
    the measures at ``t_{k-1}`` and ``t_k``. See `log_ratio` for what is learned.

    Args:
      ratio: a potential, whose value is ``r``; `stepwise` makes it networks of their own for the intervals.
      time: ``[k]``, increasing.
      optimiser: an optax transformation.
      num_nodes: of the Gauss-Legendre rule on an interval.
      average_decay: as in `training.gradient_method`.

    Returns:
      A `training.Method` whose batches are what a bridge draws: `Particles` with leaves ``[k, n, ...]``. The
      info of a step is ``(loss, losses: [k - 1])``; ``2 log 2`` each, at mass 1, is no difference.

    Raises:
      ValueError: fewer than two times, or times that do not increase.
    """
    check_times(time)

    def loss(params: Params, key: Key, batch: Particles) -> tuple[Scalar, Array]:
        del key

        def interval(start: Scalar, end: Scalar, first: Particles, last: Particles) -> Scalar:
            at = jax.vmap(lambda x: interval_log_ratio(ratio, params, start, end, x, num_nodes=num_nodes))
            return logistic_loss(at(first.position), first.weight, at(last.position), last.weight)

        ends = (jax.tree.map(lambda leaf, s=s: leaf[s], batch) for s in (slice(-1), slice(1, None)))
        losses = jax.vmap(interval)(time[:-1], time[1:], *ends)
        return jnp.sum(losses), losses

    return gradient_method(loss, optimiser, average_decay=average_decay)


def log_ratio(ratio: Potential, time: Float[Array, " k"], *, num_nodes: int = 3) -> LogRatio:
    """``log q/p(x) = Σ_k R_k(x)``, the telescope of all intervals; arguments as in `density_ratio`."""
    check_times(time)

    def total(params: Params, x: Float[Array, " d"]) -> Scalar:
        parts = jax.vmap(lambda a, b: interval_log_ratio(ratio, params, a, b, x, num_nodes=num_nodes))
        return jnp.sum(parts(time[:-1], time[1:]))

    return total


def interval_log_ratio(
    ratio: Potential, params: Params, start: Scalar, end: Scalar, x: Float[Array, " d"], *, num_nodes: int
) -> Scalar:
    """``∫ r(t, x) dt`` over one interval by the Gauss-Legendre rule."""
    node, weight = (jnp.asarray(a, x.dtype) for a in np.polynomial.legendre.leggauss(num_nodes))
    times = 0.5 * (start + end) + 0.5 * (end - start) * node
    return 0.5 * (end - start) * jnp.vdot(weight, jax.vmap(ratio.value, (None, 0, None))(params, times, x))


def stepwise(ratio: Potential, time: Float[Array, " k"]) -> Potential:
    """Parameters of its own for every interval, in whose inside the network is that of any ``t``.

    With one node an interval, `density_ratio` is then plain telescoping (Rhodes, Xu and Gutmann, 2020), and
    with the times ``[0, 1]`` one classifier.
    """

    def init(key: Key) -> Params:
        return built_each(ratio.init, jax.random.split(key, time.size - 1))

    def own(params: Params, t: Scalar) -> Params:
        index = jnp.clip(jnp.searchsorted(time, t, side="right") - 1, 0, time.size - 2)
        return entry(params, index)

    return Potential(
        init,
        lambda params, t, x: ratio.value(own(params, t), t, x),
        lambda params, t, x: ratio.jet(own(params, t), t, x),
    )


def energy_model(base: Distribution, log_ratio: Callable[[Float[Array, " d"]], Scalar]):
    """``log p(x) = log p_base(x) + log-ratio(x)``: what a ratio to a known density says of an unknown one.

    Args:
      base: with a density, on samples of which the ratio was learned.
      log_ratio: ``x: [d] -> log p/p_base``.

    Returns:
      ``x: [d] -> scalar``; normalised as far as the ratio is right, see `annealed_normaliser`.

    Raises:
      ValueError: a base without density.
    """
    density = base.log_density
    if density is None:
        raise ValueError("the base has no log_density; give a distribution with one, such as a Gaussian.")
    return lambda x: density(x) + log_ratio(x)


def bits_per_dimension(log_density: Float[Array, " n"], dim: int) -> Scalar:
    """``-E log p/(d log 2)``; of data in whole grey levels of width 1, an upper bound on what they cost."""
    return -jnp.mean(log_density) / (dim * jnp.log(2.0))


def check_times(time: Float[Array, " k"]) -> None:
    """Refuse times that are no partition of an interval."""
    if time.ndim != 1 or time.shape[0] < 2 or not np.all(np.diff(np.asarray(time)) > 0):
        raise ValueError(f"the times {time} do not increase; give at least two, from 0 to 1.")
