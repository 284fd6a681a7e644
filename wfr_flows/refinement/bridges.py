"""What leads from one sample to another in small steps: the path of a flow, or straight lines."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Field, Geometry, carry
from wfr_flows.measures import Particles, empirical
from wfr_flows.numerics import inverse_distribution, running_total
from wfr_flows.typing import Array, Float, Key, Params

Bridge = Callable[[Key], Particles]
"""``key -> Particles`` with leaves ``[k, n, ...]``: a fresh batch of the measure at each of ``k`` times.

The first and the last are the samples between which ratios are sought."""


def flow_bridge(
    field: Field,
    geometry: Geometry,
    params: Params,
    source: Particles,
    target: Particles,
    time: Float[Array, " k"],
    *,
    batch: int,
    noise: float = 0.0,
    substeps: int = 4,
) -> Bridge:
    """Batches of the measures that a flow passes through ([QF]).

    Between the ends both samples stand for the measure there, the source carried forward and the target
    carried back, in equal shares: whatever the flow still misses is split between both halves of the way.

    Args:
      field, geometry, params: of the flow between the samples, which are carried once, here.
      source, target: weighted particles.
      time: ``[k]`` from 0 to 1.
      batch: particles at every time.
      noise: standard deviation of what is added between the ends, times ``sin πt``. On a path that moves
        far, no measure on the way covers the places of all others, where ratios are asked for too; about the
        spread of the samples makes it so.
      substeps: Runge-Kutta steps between neighbouring times.
    """
    forth = _stations(field, geometry, params, source, time, substeps)
    back = _stations(field, geometry, params, target, time[::-1], substeps)
    back = jax.tree.map(lambda leaf: leaf[::-1], back)
    share = jnp.full_like(time, 0.5).at[0].set(0.0).at[-1].set(1.0)
    weight = jnp.concatenate([forth.weight * (1 - share)[:, None], back.weight * share[:, None]], axis=1)
    position = jnp.concatenate([forth.position, back.position], axis=1)
    total = jax.vmap(running_total)(weight)
    blur = noise * jnp.sin(jnp.pi * time)

    def draw(key: Key) -> Particles:
        draw_key, noise_key = jax.random.split(key)
        uniform = 1 - jax.random.uniform(draw_key, (time.size, batch), total.dtype)
        index = jax.vmap(inverse_distribution)(total, uniform)
        drawn = jnp.take_along_axis(position, index[..., None], axis=1)
        drawn += blur[:, None, None] * jax.random.normal(noise_key, drawn.shape, drawn.dtype)
        return Particles(drawn, jnp.broadcast_to(jnp.log(total[:, -1:] / batch), index.shape))

    return draw


def linear_bridge(source: Particles, target: Particles, time: Float[Array, " k"], *, batch: int) -> Bridge:
    """Batches of ``√(1-t²) x + t y`` with independent ``x`` and ``y`` (Rhodes, Xu and Gutmann, 2020, eq. 5).

    Args:
      source, target: weighted particles of one mass; they should have mean 0.
      time: ``[k]`` from 0 to 1; with ``[0, 1]`` alone this is what a single classifier learns from.
      batch: particles at every time.
    """
    across, along = jnp.sqrt(1 - time**2), time
    from_source, from_target = empirical(source).sample, empirical(target).sample

    def draw(key: Key) -> Particles:
        source_key, target_key = jax.random.split(key)
        first, last = from_source(source_key, batch), from_target(target_key, batch)
        position = across[:, None, None] * first.position + along[:, None, None] * last.position
        return Particles(position, jnp.broadcast_to(first.log_weight, position.shape[:2]))

    return draw


def _stations(
    field: Field, geometry: Geometry, params: Params, measure: Particles, time: Array, substeps: int
) -> Particles:
    """The measure at every time, leaves ``[k, n, ...]``."""
    inner = jnp.arange(substeps) / substeps
    grid = jnp.append((time[:-1, None] + jnp.diff(time)[:, None] * inner).ravel(), time[-1])
    path = jax.jit(partial(carry, field, geometry))(params, measure, grid)
    return Particles(path.position[::substeps], path.log_weight[::substeps])
