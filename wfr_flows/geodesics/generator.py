"""Weighted samples in, weighted samples and densities out: the whole of UOT-gen as three pure functions."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics.density import log_density, log_normaliser
from wfr_flows.geodesics.fit import fit
from wfr_flows.geodesics.generate import generate
from wfr_flows.measures import Particles, Whitening, empirical, standard_normal, whitening
from wfr_flows.potentials import Potential
from wfr_flows.training import last_good
from wfr_flows.typing import Array, Float, Key, Params, Scalar

MANY_DIMENSIONS: dict[str, Any] = {
    "matching_steps": 0,
    "refinement_steps": 800,
    "batch": 256,
    "learning_rate": 0.04,
    "average_decay": 0.98,
}
"""Options of `fit` beyond some 20 dimensions, where plans between samples are mostly noise.

Many small batches at a high rate do without them: in 50 dimensions a mixture of two is learned from 32,768
samples to 1 % of its masses. ``num_steps=4`` halves the time.
"""

_NORMALISER_PARTICLES = 32768


class Learned(NamedTuple):
    """A weighted measure as the reverse flow of ``N(0, I)``, followed by ``x = centre + L z``.

    Attributes:
      params: of the potential.
      whitening: of the data.
      log_normaliser: ``log Z`` of its density.
    """

    params: Params
    whitening: Whitening
    log_normaliser: Scalar


class LearnFn(Protocol):
    """``(key, source, *, start) -> Learned``: see `generator`."""

    def __call__(self, key: Key, source: Particles, /, *, start: Learned | None = None) -> Learned: ...


class Generator(NamedTuple):
    """What `generator` returns.

    Attributes:
      learn: ``(key, source, *, start=None) -> Learned`` from weighted `Particles` of any mass; ``start``
        is an earlier result whose parameters begin the training.
      sample: ``(key, learned, n) -> Particles``, ``n`` weighted samples of mass 1.
      log_density: ``(learned, x: [n, d]) -> [n]``, normalised.
    """

    learn: LearnFn
    sample: Callable[[Key, Learned, int], Particles]
    log_density: Callable[[Learned, Float[Array, "n d"]], Float[Array, " n"]]


def generator(
    potential: Potential,
    geometry: Geometry,
    *,
    num_steps: int = 8,
    matching_weight: float = 1.0,
    **options: Any,
) -> Generator:
    """A generator of weighted samples, learned from weighted samples ([WFR] algorithms 1 and 2).

    The data are brought to mean 0 and covariance I; `fit` learns the potential between them and ``N(0, I)``.

    Args:
      potential: of the dimension of the data.
      geometry: spherical; ``alpha`` is in units of the whitened data.
      num_steps: Runge-Kutta steps while training; twice as many elsewhere.
      matching_weight, options: as in `fit`; see `MANY_DIMENSIONS`.

    Returns:
      A `Generator`. ``learn`` compiles and runs two loops, and where they diverge raises
      `training.NonFiniteError`, whose state is the last good `Learned`; ``sample`` and ``log_density`` are to
      be jitted.
    """
    learning = partial(
        fit,
        potential=potential,
        geometry=geometry,
        num_steps=num_steps,
        matching_weight=matching_weight,
        **options,
    )
    # Compiled once for all that is learned.
    normaliser = jax.jit(partial(log_normaliser, potential, geometry, num_steps=2 * num_steps))
    learn = partial(_learn, learning, normaliser)
    sample = partial(_sample, potential, geometry, 2 * num_steps)
    density = partial(_log_density, potential, geometry, 2 * num_steps)
    return Generator(learn, sample, density)


def _learn(
    learning: Callable[..., Params],
    normaliser: Callable[[Params, Particles], Scalar],
    key: Key,
    source: Particles,
    /,
    *,
    start: Learned | None = None,
) -> Learned:
    fit_key, normaliser_key = jax.random.split(key)
    seen = whitening(source)
    white = source._replace(position=seen(source.position)).normalise()

    def learned(params: Params) -> Learned:
        many = standard_normal(seen.centre.size).spread(normaliser_key, _NORMALISER_PARTICLES)
        return Learned(params, seen, normaliser(params, many))

    with last_good(learned):
        params = learning(
            fit_key,
            source=empirical(white),
            target=standard_normal(seen.centre.size),
            start=None if start is None else start.params,
        )
    return learned(params)


def _sample(
    potential: Potential, geometry: Geometry, num_steps: int, key: Key, learned: Learned, n: int
) -> Particles:
    noise = standard_normal(learned.whitening.centre.size).sample(key, n)
    white = generate(potential, geometry, learned.params, noise, num_steps=num_steps)
    return white._replace(position=learned.whitening.back(white.position))


def _log_density(
    potential: Potential, geometry: Geometry, num_steps: int, learned: Learned, x: Float[Array, "n d"]
) -> Float[Array, " n"]:
    normal = standard_normal(learned.whitening.centre.size)
    assert normal.log_density is not None
    white = log_density(
        potential,
        geometry,
        learned.params,
        learned.whitening(x),
        normal.log_density,
        log_normaliser=learned.log_normaliser,
        num_steps=num_steps,
    )
    return white - learned.whitening.log_det
