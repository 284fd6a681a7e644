"""Exact potentials of a geodesic, from the dual potentials of the static problem."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from wfr_flows.measures import Particles
from wfr_flows.numerics import REACH, in_blocks, inverse_alpha, saturate, sinc_squared, squared_distance
from wfr_flows.static.diracs import cone_angle, spherical_time
from wfr_flows.static.result import StaticResult
from wfr_flows.static.solver import semi_coupling
from wfr_flows.typing import Array, ArrayLike, Float


def end_potentials(result: StaticResult, alpha: ArrayLike) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """``Φ(0, x_i) = 2alpha(1 - e^{-f_i/2alpha})`` and ``Φ(1, y_j) = -2alpha(1 - e^{-g_j/2alpha})`` [LMS].

    On the particles of the source and of the target, where ``v = -∇Φ`` and ``g = -Φ/alpha`` begin and end the
    WFR geodesic. ``2alpha`` (source) and ``-2alpha`` (target) mark mass without partner: it dies or is born.

    Args:
      result: from `wfr` or, for the plain geodesic between the normalised measures, `spherical_wfr`.
      alpha: as given to it; ``inf`` gives the dual potentials themselves.
    """
    half = (0.5 * inverse_alpha(alpha)).astype(result.value.dtype)
    return saturate(result.potentials.source, half), -saturate(result.potentials.target, half)


def potential(
    result: StaticResult, source: Particles, alpha: ArrayLike, time: ArrayLike, points: Float[Array, "k d"]
) -> Float[Array, " k"]:
    """The exact potential ``Φ(t, x)`` of the WFR geodesic at any point, by Hopf-Lax [LMS].

    ``-Φ(t, x) = inf_y (2alpha/t) (1 - cos²(min(|x-y|/2√alpha, π/2)) / (1 - tΦ(0, y)/2alpha))`` over source
    particles with weight, and ``inf_y |x-y|²/2t - Φ(0, y)`` at ``alpha = inf``. It solves
    ``∂tΦ = ½|∇Φ|² + Φ²/(2alpha)``; on travelling particles ``v = -∇Φ`` and ``g = -Φ/alpha``.

    Args:
      result, source, alpha: of `wfr`.
      time: in (0, 1]; at 0 the potential is known on the source alone, see `end_potentials`.
      points: ``[k, d]``.

    Returns:
      ``[k]``, differentiable in the points almost everywhere; memory is linear in ``n + k``.

    Raises:
      ValueError: a concrete ``time`` outside (0, 1].
    """
    if not isinstance(time, Tracer) and not np.all((np.asarray(time) > 0) & (np.asarray(time) <= 1)):
        raise ValueError(f"time is {time}; give a number in (0, 1], or use end_potentials for 0.")
    start = jax.lax.stop_gradient(end_potentials(result, alpha)[0])
    time = jnp.asarray(time, points.dtype)
    k = inverse_alpha(alpha).astype(points.dtype)
    # 1 - cos² z / b = (sin² z - (1 - b)) / b, so that alpha = inf is a limit like any other.
    room = 1 - 0.5 * time * start * k

    def block(some: Float[Array, "b d"]) -> Float[Array, " b"]:
        squared = squared_distance(some, source.position)
        angle = jnp.minimum(0.25 * squared * k, REACH)
        within = jnp.where(k > 0, angle / jnp.where(k > 0, k, 1.0), 0.25 * squared)
        sine = within * sinc_squared(4 * angle)
        value = (2 * sine / time - start[None]) / jnp.where(room > 0, room, 1.0)[None]
        # A particle that dies altogether has no room left at t = 1, and sends nothing.
        present = (source.log_weight > -jnp.inf) & (room > 0)
        return -jnp.min(jnp.where(present, value, jnp.inf), axis=1)

    return in_blocks(block, points, source.log_weight.size)


def spherical_potential(
    result: StaticResult,
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    time: ArrayLike,
    points: Float[Array, "k d"],
) -> Float[Array, " k"]:
    """The potential of the spherical geodesic, with mean 0: ``s′(t) (Φ(s(t), x) - Φ̄(s(t)))`` [LM].

    ``v = -∇Φ`` and ``g = -Φ/alpha`` in spherical time. The mean is that over the geodesic itself, along which
    ``d/ds ∫Φ dμ_s`` is known: ``s`` is plain time, and ``g = -Φ/alpha`` makes
    ``∫Φ dμ_s = -alpha dM/ds`` with the quadratic total mass ``M(s)``.

    Args:
      result: of `spherical_wfr`.
      source, target: the measures given to it; normalised here.
      alpha, time, points: as in `potential`.
    """
    source, target = source.normalise(), target.normalise()
    angle = cone_angle(semi_coupling(result, source, target, alpha), alpha)
    plain_time, speed = spherical_time(time, angle)
    # M(s) = 1 - s(1-s) HK² and HK² = 2(1 - cos Θ), so -alpha M′/M = 2alpha (1-2s)(1 - cos Θ)/M.
    drop = 4 * jnp.sin(angle / 2) ** 2
    mass = 1 - plain_time * (1 - plain_time) * drop
    finite = jnp.where(jnp.isinf(alpha), 1.0, alpha)
    mean = jnp.where(jnp.isinf(alpha), 0.0, finite * (1 - 2 * plain_time) * drop / mass)
    return speed * (potential(result, source, alpha, plain_time, points) - mean)
