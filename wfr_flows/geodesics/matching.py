"""Simulation-free matching: regress a potential on the travelling Diracs of the exact geodesic."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Geometry
from wfr_flows.numerics import inverse_distribution, running_total
from wfr_flows.potentials import Jet, Potential
from wfr_flows.static import Diracs, DiracState, cone_angle, spherical_time, travel
from wfr_flows.typing import Array, Float, Key, Params, Scalar


def matching(
    potential: Potential,
    geometry: Geometry,
    diracs: Diracs,
    *,
    num_times: int = 32,
    num_pairs: int = 64,
) -> Callable[[Params, Key], Scalar]:
    """The loss whose minimiser is the potential of the exact spherical geodesic.

    Travelling Diracs of an optimal semi-coupling are the conditional paths. At random times it is
    ``E_t Σ_k (m_k(s)/M(s)) [½|∇Φ + s′ẋ_k|² + (alpha/2)((Φ-Φ̄)/alpha + s′(ṁ_k/m_k - Ṁ/M))²]``, with
    ``s = s(t)`` the WFR time of the spherical geodesic: the regression of ``-∇Φ`` on velocity and of
    ``-(Φ-Φ̄)/alpha`` on growth, in the metric's own inner product. No trajectory is simulated.

    Args:
      potential, geometry: spherical; ``alpha = inf`` regresses on straight lines.
      diracs: a semi-coupling of two probability measures, from `static.semi_coupling`.
      num_times: random times per evaluation, stratified over [0, 1].
      num_pairs: Diracs drawn at each time, with probability proportional to their mass.

    Returns:
      ``(params, key) -> loss``.
    """
    inverse_alpha = geometry.inverse_alpha
    alpha = jnp.where(inverse_alpha == 0, 0.0, geometry.alpha)
    angle = jax.jit(cone_angle)(diracs, geometry.alpha)
    cone_value = 4 * jnp.sin(angle / 2) ** 2
    share = diracs.source_mass + diracs.target_mass
    total = running_total(share)

    def sample(key: Key) -> tuple[Float[Array, " t"], Array, Float[Array, "t k"]]:
        time_key, pair_key = jax.random.split(key)
        time = (jnp.arange(num_times) + jax.random.uniform(time_key, (num_times,))) / num_times
        uniform = 1 - jax.random.uniform(pair_key, (num_times, num_pairs), total.dtype)
        index = inverse_distribution(total, uniform)
        return time.astype(total.dtype), index, total[-1] / share[index]

    def state_at(time: Scalar, index: Array) -> DiracState:
        plain, rate = spherical_time(time, angle)
        mass = 1 - plain * (1 - plain) * cone_value
        mass_growth = -(1 - 2 * plain) * cone_value / mass
        state = travel(jax.tree.map(lambda leaf: leaf[index], diracs), plain, geometry.alpha)
        growth = rate * (state.growth - mass_growth)
        return DiracState(state.position, state.mass / mass, rate * state.velocity, growth)

    def loss(params: Params, key: Key) -> Scalar:
        time, index, importance = sample(key)
        state = jax.vmap(state_at)(time, index)
        jets: Jet = jax.vmap(jax.vmap(potential.jet, (None, None, 0)), (None, 0, 0))(
            params, time, state.position
        )
        weight = state.mass * importance
        mean = jnp.sum(weight * jets.value, axis=1, keepdims=True) / jnp.sum(weight, axis=1, keepdims=True)
        motion = jnp.sum((jets.gradient + state.velocity) ** 2, axis=-1)
        reaction = inverse_alpha * (jets.value - mean + alpha * state.growth) ** 2
        return 0.5 * jnp.mean(weight * (motion + reaction))

    return loss
