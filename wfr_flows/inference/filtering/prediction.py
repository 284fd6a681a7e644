"""Prediction by a flow with density: gradients of convex networks, from one observation to the next."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from wfr_flows.gradient_flows import ConvexMap, JKOState, Sample, carry, carry_back, icnn_jko
from wfr_flows.inference.filtering.filtered import check_counts
from wfr_flows.inference.filtering.model import StateSpace
from wfr_flows.inference.filtering.splitting import Splitting, splitting
from wfr_flows.measures import equally_weighted
from wfr_flows.potentials import ConvexPotential, doubled, icnn
from wfr_flows.typing import Array, Float, Key, Params, Scalar


class Prediction(NamedTuple):
    """The law of the state, carried from one time to another.

    Attributes:
      init: ``key -> params``.
      learn: ``(key, params, sample, start, end) -> (params, maps)``, from weighted particles of mass 1.
      carry: ``(maps, sample, start, end) -> Sample``, any particles of the law, with their density.
      carry_back: ``(maps, x: [n, d], start, end) -> ([n, d], [n])``, where points at ``end`` come from, and
        the log-determinant of the way from there to them.
    """

    init: Callable[[Key], Params]
    learn: Callable[[Key, Params, Sample, Scalar, Scalar], tuple[Params, ConvexMap]]
    carry: Callable[[ConvexMap, Sample, Scalar, Scalar], Sample]
    carry_back: Callable[
        [ConvexMap, Float[Array, "n d"], Scalar, Scalar], tuple[Float[Array, "n d"], Float[Array, " n"]]
    ]


def flow_prediction(
    model: StateSpace,
    potential: ConvexPotential | None = None,
    *,
    num_steps: int = 5,
    num_iterations: int = 200,
    batch: int = 1024,
    order: int = 1,
    optimiser: optax.GradientTransformation | None = None,
) -> Prediction:
    """The Fokker-Planck equation by JKO steps with convex networks ([JKO] section 3.4).

    With a potential, the steps are those of the free energy ``∫Φ dρ + β⁻¹ ∫ρ log ρ``. With another drift they
    are those of the entropy alone, halfway along ``ẋ = f``: see `splitting`.

    Args:
      model: the diffusion; without a potential, its noise is ``[d, d]``, invertible, and the same at all
        times and states.
      potential: the convex network; by default one that bends sharply enough for several modes.
      num_steps: JKO steps between observations.
      num_iterations, batch, order: as in `gradient_flows.icnn_jko`. Order 2 is for laws without narrow modes,
        which it does not damp.
      optimiser: by default Adam at a rate that falls from .003 to 0 over ``num_iterations``.

    Raises:
      ValueError: noise that is not square, singular, or not the same everywhere (`particle_filter` takes such
        models); options out of range.
    """
    check_counts(num_steps=num_steps)
    if potential is None:
        potential = icnn(model.dim, width=64, scale=2.0, sharpness=8.0)
    if optimiser is None:
        # Particles of little weight have small gradients, which a larger eps would drown.
        optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, num_iterations), eps=1e-12)
    split = splitting(model)
    jko = icnn_jko(
        potential, split.energy, optimiser, num_iterations=num_iterations, batch=batch, order=order
    )

    def learn(
        key: Key, params: Params, sample: Sample, start: Scalar, end: Scalar
    ) -> tuple[Params, ConvexMap]:
        time = _times(start, end, num_steps)
        step = (end - start) / num_steps

        def body(now: tuple[Params, Sample], one: tuple[Key, Scalar]):
            (params, sample), (key, t) = now, one
            sample = split.into(sample, t, t + 0.5 * step)
            state, info = jko.step(key, JKOState(sample, params, None, jnp.zeros((), jnp.int32)), step)
            return (state.params, split.out(state.sample, t + 0.5 * step, t + step)), info.map

        (params, _), maps = jax.lax.scan(body, (params, sample), (jax.random.split(key, num_steps), time))
        return params, maps

    moving = potential if order == 1 else doubled(potential)
    return Prediction(
        potential.init, learn, partial(_carry, moving, split), partial(_carry_back, moving, split)
    )


def _times(start: Scalar, end: Scalar, num_steps: int) -> Float[Array, " k"]:
    return start + (end - start) * jnp.arange(num_steps, dtype=end.dtype) / num_steps


def _carry(
    potential: ConvexPotential, split: Splitting, maps: ConvexMap, sample: Sample, start: Scalar, end: Scalar
) -> Sample:
    num_steps = maps.scale.shape[0]
    step = (end - start) / num_steps

    def body(sample: Sample, now: tuple[ConvexMap, Scalar]) -> tuple[Sample, None]:
        one, t = now
        sample = carry(potential, _alone(one), split.into(sample, t, t + 0.5 * step))
        return split.out(sample, t + 0.5 * step, t + step), None

    return jax.lax.scan(body, sample, (maps, _times(start, end, num_steps)))[0]


def _carry_back(
    potential: ConvexPotential,
    split: Splitting,
    maps: ConvexMap,
    x: Float[Array, "n d"],
    start: Scalar,
    end: Scalar,
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    num_steps = maps.scale.shape[0]
    step = (end - start) / num_steps

    def body(sample: Sample, now: tuple[ConvexMap, Scalar]) -> tuple[Sample, None]:
        one, t = now
        particles, log_density = split.into(sample, t + step, t + 0.5 * step)
        before, log_det = carry_back(potential, _alone(one), particles.position)
        sample = Sample(particles._replace(position=before), log_density + log_det)
        return split.out(sample, t + 0.5 * step, t), None

    begin = Sample(equally_weighted(x), jnp.zeros(x.shape[0], x.dtype))
    found, _ = jax.lax.scan(body, begin, (maps, _times(start, end, num_steps)), reverse=True)
    return found.particles.position, found.log_density


def _alone(one: ConvexMap) -> ConvexMap:
    return jax.tree.map(lambda leaf: leaf[None], one)
