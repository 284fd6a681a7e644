"""Simulation-free matching: regress a potential on the travelling Diracs of the exact geodesic."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Geometry
from wfr_flows.numerics import inverse_distribution, running_total
from wfr_flows.potentials import Potential
from wfr_flows.static import (
    Diracs,
    DiracState,
    cone_angle,
    coupling_cost,
    spherical_from_plain,
    spherical_travel,
)
from wfr_flows.training import Chunk, Method, cosine_muon, gradient_method, last_good, run
from wfr_flows.typing import Array, ArrayLike, Float, Key, Params, Scalar

Loss = Callable[[Params, Key], Scalar]
"""``(params, key) -> scalar``."""


def zero_loss(params: Params, key: Key) -> Scalar:
    """The loss that asks for nothing."""
    del params, key
    return jnp.zeros(())


def matching(
    potential: Potential,
    geometry: Geometry,
    diracs: Diracs,
    *,
    num_times: int = 32,
    num_pairs: int = 64,
) -> Loss:
    """The loss whose minimiser is the potential of the exact spherical geodesic.

    Travelling Diracs of an optimal semi-coupling are the conditional paths; with ``s = s(t)`` the WFR time of
    the spherical geodesic, ``v = s′ẋ`` is the velocity of one and ``g = s′(ṁ/m - Ṁ/M)`` its growth. At random
    times the loss is the mean by mass, ``E_t Σ_k (m_k/M)``, of

    - ``½|∇Φ + v|²`` and ``(alpha/2)((Φ - Φ̄)/alpha + g)²``: the regression of ``-∇Φ`` on velocity and of
      ``-(Φ - Φ̄)/alpha`` on growth, in the metric's own inner product;
    - ``½(∂ₜΦ - e)²/(e + d²_SWFR)`` with ``e = ½|v|² + ½alpha g²``: the Hamilton-Jacobi equation, on a Dirac's
      own motion and growth, in units of its energy (which has no bound where a Dirac dies);
    - ``½ (Φ̄ - (½ - t) d²_SWFR)²``: of the functions of time that all of this leaves free, the one in
      whose gauge the equation has no other term.

    No trajectory is simulated.

    Args:
      potential, geometry: spherical; ``alpha = inf`` regresses on straight lines.
      diracs: a semi-coupling of two probability measures, from `static.semi_coupling`.
      num_times: random times per evaluation, stratified over [0, 1].
      num_pairs: Diracs drawn at each time, with probability proportional to their mass.

    Raises:
      ValueError: fewer than two pairs.
    """
    if num_pairs < 2:
        raise ValueError(f"num_pairs is {num_pairs}; give at least 2.")
    halves = slice(None, num_pairs // 2), slice(num_pairs // 2, None)
    angle, squared_distance, share, total = _of_pairs(diracs, geometry.alpha)
    jets_at = jax.vmap(jax.vmap(potential.jet, (None, None, 0)), (None, 0, 0))

    def loss(params: Params, key: Key) -> Scalar:
        time, index = draw(jax.random.split(key), total, num_times, num_pairs)
        chosen = jax.tree.map(lambda leaf: leaf[index], diracs)
        state = jax.vmap(spherical_travel, (0, 0, None, None))(chosen, time, geometry.alpha, angle)
        jets = jets_at(params, time, state.position)
        weight = state.mass * total[-1] / share[index]
        # Growth has mean zero, so the mean of this is that of Φ, but with less noise.
        level = jets.value + geometry.growth_weight * state.growth
        reaction = geometry.inverse_alpha * (level - _mean(level, weight)[:, None]) ** 2
        motion = jnp.sum((jets.gradient + state.velocity) ** 2, axis=-1)
        errors = motion + reaction + evolution_error(geometry, jets.time_derivative, state, squared_distance)
        # Two independent means, so that their noise does not count as an error.
        first, second = (_mean(level[:, half], weight[:, half]) for half in halves)
        gauge = jnp.mean(jnp.prod(jnp.stack([first, second]) - (0.5 - time) * squared_distance, axis=0))
        return 0.5 * (jnp.mean(weight * errors) + gauge)

    return loss


@jax.jit
def _of_pairs(diracs: Diracs, alpha: ArrayLike) -> tuple[Array, Scalar, Array, Array]:
    """Angles between ends, squared spherical distance, and how often to draw each with its running total."""
    share = diracs.source_mass + diracs.target_mass
    squared_distance = spherical_from_plain(coupling_cost(diracs, alpha), alpha)
    return cone_angle(diracs, alpha), squared_distance, share, running_total(share)


def evolution_error(
    geometry: Geometry, time_derivative: Float[Array, "*s"], state: DiracState, unit: ArrayLike
) -> Float[Array, "*s"]:
    """How far ``∂ₜΦ`` is from the Hamilton-Jacobi equation at travelling Diracs: ``(∂ₜΦ - e)²/(e + unit)``.

    ``e`` is `Geometry.energy`.
    """
    energy = geometry.energy(state.velocity, state.growth)
    scale = energy + unit
    return (time_derivative - energy) ** 2 / jnp.where(scale > 0, scale, 1.0)


def matching_method(match: Loss, optimiser: optax.GradientTransformation) -> Method:
    """Descent on `matching`, as a `training.Method` that takes no batches: it draws times and pairs itself.

    Args:
      match: what `matching` returns.
      optimiser: an optax transformation.
    """
    return gradient_method(lambda params, key, batch: (match(params, key), ()), optimiser)


def fit_matching(
    key: Key,
    params: Params,
    match: Loss,
    num_steps: int,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
    **options: Any,
) -> Params:
    """Parameters after steps of `training.cosine_muon` on a matching loss; those given after none.

    Args:
      match: of `matching`, or another loss that draws for itself.
      on_chunk: as in `training.run`.
      options: of `training.cosine_muon`.

    Raises:
      training.NonFiniteError: training diverged; its state is the last good parameters.
    """
    if num_steps == 0:
        return params
    method = matching_method(match, cosine_muon(num_steps, **options))
    state, chunk_size = method.init(params), min(num_steps, 250)
    with last_good(lambda state: state.params):
        state = run(method, key, state, lambda _: (), num_steps, chunk_size=chunk_size, on_chunk=on_chunk)
    return state.params


def draw(keys: Key, total: Float[Array, " m"], num_times: int, num_pairs: int) -> tuple[Array, Array]:
    """Stratified times ``[t]`` and Diracs ``[t, k]`` by the running total of their shares, from two keys."""
    time_key, pair_key = keys
    time = (jnp.arange(num_times) + jax.random.uniform(time_key, (num_times,))) / num_times
    uniform = 1 - jax.random.uniform(pair_key, (num_times, num_pairs), total.dtype)
    return time.astype(total.dtype), inverse_distribution(total, uniform)


def _mean(value: Float[Array, "t k"], weight: Float[Array, "t k"]) -> Float[Array, " t"]:
    return jnp.sum(weight * value, axis=1) / jnp.sum(weight, axis=1)
