"""Densities an energy model begins with, each the standard normal's seen through an invertible map."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.dynamics import Field, Geometry, carry, time_grid
from wfr_flows.geodesics import fit_matching
from wfr_flows.measures import (
    Distribution,
    Particles,
    empirical,
    equally_weighted,
    moments,
    standard_normal,
    whitening_by,
)
from wfr_flows.refinement.pairs import flow_matching
from wfr_flows.static import Diracs
from wfr_flows.training import Chunk
from wfr_flows.typing import Array, ArrayLike, Float, Key, Params, Scalar

_WASSERSTEIN = Geometry(float("inf"), spherical=False)


class Base(NamedTuple):
    """An invertible map that makes a law nearly standard normal.

    Ratios are best learned there: they are the same as in the original coordinates.

    Attributes:
      dim: dimension ``d``.
      whiten: ``x: [d] -> (z: [d], log |det ∂z/∂x|)``.
      colour: ``z: [d] -> x: [d]``, the inverse.
    """

    dim: int
    whiten: Callable[[Float[Array, " d"]], tuple[Float[Array, " d"], Scalar]]
    colour: Callable[[Float[Array, " d"]], Float[Array, " d"]]


def base_distribution(base: Base) -> Distribution:
    """The law of ``colour(z)``, ``z`` standard normal."""
    normal = standard_normal(base.dim)
    density = normal.log_density
    assert density is not None

    def carried(draw):
        def sample(key, n: int) -> Particles:
            drawn = draw(key, n)
            return drawn._replace(position=jax.vmap(base.colour)(drawn.position))

        return sample

    def log_density(x: Float[Array, " d"]) -> Scalar:
        z, log_det = base.whiten(x)
        return density(z) + log_det

    return Distribution(base.dim, carried(normal.sample), log_density, carried(normal.spread))


def gaussian_base(measure: Particles) -> Base:
    """The Gaussian of the moments of a weighted sample; its covariance has to be regular."""
    seen = whitening_by(*moments(measure))
    return Base(seen.centre.size, lambda x: (seen(x), -seen.log_det), seen.back)


def copula_base(measure: Particles, edges: ArrayLike) -> Base:
    """A Gaussian copula: every coordinate has the histogram of the sample, normal scores have its moments.

    With ``u`` the distribution function of a coordinate, piecewise linear, the scores ``Φ⁻¹(u)`` of all
    coordinates are taken to be Gaussian. A bin of the histogram holds the weight of the points there and that
    of one more point, spread over all bins.

    Args:
      measure: weighted particles.
      edges: ``[b + 1]``, increasing, of the bins of every coordinate; beyond them the density is 0.

    Raises:
      ValueError: edges that do not increase, or a point beyond them.
    """
    bins, points = np.asarray(edges), np.asarray(measure.position)
    if bins.ndim != 1 or bins.size < 2 or not (np.diff(bins) > 0).all():
        raise ValueError(f"the edges {bins} do not increase; give at least two.")
    if points.min() < bins[0] or points.max() > bins[-1]:
        raise ValueError(f"points lie outside of the edges, {bins[0]} to {bins[-1]}; give wider ones.")
    share = np.asarray(measure.normalise().weight, np.float64)
    counts = np.stack([np.histogram(column, bins, weights=share)[0] for column in points.T])
    smooth = (counts * share.size + 1 / (bins.size - 1)) / (share.size + 1)
    dtype = measure.position.dtype
    total = jnp.asarray(np.concatenate([np.zeros((len(smooth), 1)), smooth.cumsum(1)], axis=1), dtype)
    total = total / total[:, -1:]
    edge = jnp.asarray(bins, dtype)

    def score(x: Float[Array, " d"]) -> tuple[Array, Scalar]:
        def one(value: Scalar, heights: Float[Array, " b+1"]) -> tuple[Scalar, Scalar]:
            index = jnp.clip(jnp.searchsorted(edge, value, side="right") - 1, 0, edge.size - 2)
            slope = (heights[index + 1] - heights[index]) / (edge[index + 1] - edge[index])
            within = heights[index] + slope * (value - edge[index])
            normal = jax.scipy.special.ndtri(jnp.clip(within, 1e-6, 1 - 1e-6))
            inside = (value >= edge[0]) & (value <= edge[-1])
            rise = jnp.log(slope) - jax.scipy.stats.norm.logpdf(normal)
            return normal, jnp.where(inside, rise, -jnp.inf)

        scores, rises = jax.vmap(one)(x, total)
        return scores, jnp.sum(rises)

    scores = jax.vmap(lambda x: score(x)[0])(measure.position)
    inner = gaussian_base(measure._replace(position=scores))

    def whiten(x: Float[Array, " d"]) -> tuple[Array, Scalar]:
        scores, rise = score(x)
        z, log_det = inner.whiten(scores)
        return z, log_det + rise

    def colour(z: Float[Array, " d"]) -> Array:
        level = jax.scipy.stats.norm.cdf(inner.colour(z))
        return jax.vmap(lambda u, heights: jnp.interp(u, heights, edge))(level, total)

    return Base(inner.dim, whiten, colour)


def flow_base(field: Field, params: Params, inner: Base, *, num_steps: int = 32) -> Base:
    """What a flow makes of the standard normal, in the coordinates of another base.

    Args:
      field, params: of a flow in those coordinates from the standard normal at time 0 to the data at time 1.
      inner: another base.
      num_steps: Runge-Kutta steps.
    """
    through = partial(carry, field, _WASSERSTEIN, params)

    def whiten(x: Float[Array, " d"]) -> tuple[Array, Scalar]:
        scores, rise = inner.whiten(x)
        back = through(equally_weighted(scores[None]), time_grid(num_steps, reverse=True), log_det=True)
        return back.position[-1, 0], rise + back.log_det[-1, 0]

    def colour(z: Float[Array, " d"]) -> Array:
        there = through(equally_weighted(z[None]), time_grid(num_steps))
        return inner.colour(there.position[-1, 0])

    return Base(inner.dim, whiten, colour)


def fit_base(
    key: Key,
    field: Field,
    measure: Particles,
    inner: Base,
    *,
    num_steps: int = 4000,
    batch: int = 2048,
    learning_rate: float = 3e-2,
    weight_decay: float = 0.0,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
) -> Base:
    """`flow_base` with a flow learned by matching, on straight lines from fresh noise at every step.

    A network for the velocity goes on in straight lines beyond the data, so that log-densities fall off like
    those of Gaussians there.

    Args:
      field: of free velocity or of a potential, see `flow_base`.
      measure: weighted particles.
      inner: whose coordinates the flow moves in, such as `gaussian_base` of the measure.
      num_steps, batch: of training.
      learning_rate, weight_decay: of `training.cosine_muon`.
      on_chunk: as in `training.run`.
    """
    init_key, train_key = jax.random.split(key)
    points = jax.jit(partial(jax.lax.map, lambda x: inner.whiten(x)[0], batch_size=1024))(measure.position)
    normal, data = standard_normal(inner.dim), empirical(measure._replace(position=points))
    mass = jnp.full(batch, 1 / batch, points.dtype)

    def loss(params: Params, key: Key) -> Scalar:
        noise_key, data_key, time_key = jax.random.split(key, 3)
        ends = normal.sample(noise_key, batch).position, data.sample(data_key, batch).position
        match = flow_matching(
            field, _WASSERSTEIN, Diracs(*ends, mass, mass), num_times=batch // 8, num_pairs=8
        )
        return match(params, time_key)

    params = fit_matching(
        train_key,
        jax.jit(field.init)(init_key),
        loss,
        num_steps,
        on_chunk,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    return flow_base(field, params, inner)
