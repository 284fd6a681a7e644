"""JKO steps as gradients of input-convex networks: gradient flows with their density."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Trajectory
from wfr_flows.gradient_flows.functionals import Functional, LogDensity
from wfr_flows.measures import Particles, centre_and_scale, moments, with_moments
from wfr_flows.numerics import in_blocks
from wfr_flows.potentials import ConvexPotential, doubled, pull_back, push_forward
from wfr_flows.training import Method, copied, updated
from wfr_flows.typing import Array, ArrayLike, Float, Int, Key, Params, Scalar


class Sample(NamedTuple):
    """Particles and the log-density of their law at each.

    Attributes:
      particles: of mass 1.
      log_density: ``[n]``.
    """

    particles: Particles
    log_density: Float[Array, " n"]


class ConvexMap(NamedTuple):
    """``T(x) = c + s ∇ψ((x - c)/s)``; those of many steps, stacked, are a flow.

    Attributes:
      params: of ``ψ``.
      centre, scale: ``c`` and ``s``, mean and spread of the law that the map was learned on.
    """

    params: Params
    centre: Float[Array, " d"]
    scale: Scalar


class JKOState(NamedTuple):
    """What the next step needs.

    Attributes:
      sample: of ``ρ_k``.
      params: where the next step begins.
      maps: with fresh samples only, ``[num_steps]`` maps, the identity from ``step`` on; else None.
      step: ``k``.
    """

    sample: Sample
    params: Params
    maps: ConvexMap | None
    step: Int[Array, ""]


class JKOInfo(NamedTuple):
    """Diagnostics of a step.

    Attributes:
      map: what it learned.
      energy: ``F(ρ_(k+1))`` over all particles.
      transport: ``W₂²(ρ_k, ρ_(k+1))/2h``; ``energy + transport`` is the objective.
      loss: ``[num_iterations]`` objectives of the inner iterations.
    """

    map: ConvexMap
    energy: Scalar
    transport: Scalar
    loss: Float[Array, " i"]


def icnn_jko(
    potential: ConvexPotential,
    functional: Functional,
    optimiser: optax.GradientTransformation,
    *,
    num_iterations: int = 200,
    batch: int = 1024,
    order: int = 1,
    restart: bool = False,
    fresh: Callable[[Key], Sample] | None = None,
    num_steps: int = 0,
) -> Method:
    """Steps ``ρ_(k+1) = ∇ψ#ρ_k``, ``ψ`` of ``min_ψ E|∇ψ(x) - x|²/2h + F(∇ψ#ρ_k)`` ([JKO] eqs. 9-10).

    Every step minimises over batches of one sample of ``ρ_k``, with exact log-determinants, and moves all of
    it once, at the end: ``K`` steps cost ``O(K)``. `evolve` and `training.run` scan them.

    Args:
      potential: ``ψ``, for points of mean 0 and spread 1.
      functional: ``F``.
      optimiser: an optax transformation, begun anew in every step; let its rate fall to 0 over
        ``num_iterations``.
      num_iterations: updates in a step.
      batch: neighbours in the sample (in random order, or evenly spread) that an update sees, moved to its
        mean and covariance; all of it if it has no more.
      order: 1 for JKO; 2 for the midpoint rule, twice the way of a JKO step of size ``h/2``, by gradients of
        ``doubled(potential)``: NaN for an ``h`` so large that this step halves distances.
      restart: begin every step at the identity, not where the last one ended.
      fresh: ``key -> Sample`` of ``ρ_0``, to carry a new sample through all maps at every step. The default
        keeps the first one.
      num_steps: how many steps there may be, with ``fresh``.

    Returns:
      A `training.Method`: ``init((key, sample)) -> JKOState`` and
      ``step(key, state, step_size) -> (JKOState, JKOInfo)`` for any step size ``h > 0``.

    Raises:
      ValueError: counts below 1, ``num_steps`` without ``fresh``, or the reverse.
    """
    _check(num_iterations, batch, order, fresh, num_steps)
    moving = potential if order == 1 else doubled(potential)

    def step(key: Key, state: JKOState, step_size: ArrayLike) -> tuple[JKOState, JKOInfo]:
        start_key, draw_key, key = jax.random.split(key, 3)
        sample = state.sample
        if fresh is not None and state.maps is not None:
            sample = carry(moving, state.maps, fresh(draw_key))
        step_size = jnp.asarray(step_size, sample.log_density.dtype)
        start = potential.init(start_key) if restart else state.params
        before = ConvexMap(start, *centre_and_scale(sample.particles))

        def loss(params: Params, some: Sample) -> Scalar:
            moved, transport = _moved(potential, before._replace(params=params), some)
            return order * transport / step_size + functional(*moved)

        draw, keys = _batches(sample, batch), jax.random.split(key, num_iterations)
        params, values = _minimise(keys, loss, start, draw, optimiser, potential.project)
        return _advanced(moving, functional, state, sample, before._replace(params=params), step_size, values)

    return Method(lambda start: _begin(potential, start[0], start[1], num_steps), step)


def _begin(potential: ConvexPotential, key: Key, sample: Sample, num_steps: int) -> JKOState:
    params, maps = potential.init(key), None
    if num_steps:
        one = ConvexMap(params, *centre_and_scale(sample.particles))
        maps = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_steps), one)
    sample = sample._replace(particles=sample.particles.normalise())
    return copied(JKOState(sample, params, maps, jnp.zeros((), jnp.int32)))


def _advanced(
    potential: ConvexPotential,
    functional: Functional,
    state: JKOState,
    sample: Sample,
    learned: ConvexMap,
    step_size: Scalar,
    loss: Float[Array, " i"],
) -> tuple[JKOState, JKOInfo]:
    """All of the sample moved by the map of a step; a flow with fresh samples keeps the map."""
    moved, transport = _moved(potential, learned, sample)
    maps = state.maps
    if maps is not None:
        maps = jax.tree.map(lambda every, one: every.at[state.step].set(one), maps, learned)
    info = JKOInfo(learned, functional(*moved), transport / step_size, loss)
    return JKOState(moved, learned.params, maps, state.step + 1), info


def _check(num_iterations: int, batch: int, order: int, fresh: Callable | None, num_steps: int) -> None:
    if order not in {1, 2}:
        raise ValueError(f"order is {order}; give 1 or 2.")
    if num_iterations < 1 or batch < 1:
        raise ValueError(f"num_iterations is {num_iterations} and batch {batch}; give at least 1.")
    if (fresh is None) != (num_steps == 0) or num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}; give how many there may be with fresh, and 0 without.")


def _minimise(
    keys: Key,
    loss: Callable[[Params, Sample], Scalar],
    params: Params,
    draw: Callable[[Key], Sample],
    optimiser: optax.GradientTransformation,
    project: Callable[[Params], Params],
) -> tuple[Params, Float[Array, " i"]]:
    """Projected descent on drawn batches, an update for every key; also the losses."""

    def update(now, key: Key):
        params, state = now
        some = draw(key)
        value, gradient = jax.value_and_grad(loss)(params, some)
        params, state = updated(optimiser, gradient, state, params, value, lambda params: loss(params, some))
        return (project(params), state), value

    (params, _), values = jax.lax.scan(update, (params, optimiser.init(params)), keys)
    return params, values


def carry(potential: ConvexPotential, maps: ConvexMap, sample: Sample) -> Sample:
    """A sample of ``ρ_0``, carried through stacked maps."""
    return jax.lax.scan(lambda now, one: (_moved(potential, one, now)[0], None), sample, maps)[0]


def trajectory(
    potential: ConvexPotential, maps: ConvexMap, particles: Particles, time: Float[Array, " k+1"]
) -> Trajectory:
    """Particles of ``ρ_0`` and what every step makes of them.

    ``log ρ_k`` at the positions is ``log ρ_0`` at the first ones minus ``log_det[k]``.

    Args:
      potential, maps: the flow; ``k`` stacked maps.
      particles: of ``ρ_0``.
      time: ``[k + 1]``, the sums of the step sizes from 0 on.
    """

    def body(now: Sample, one: ConvexMap):
        after, _ = _moved(potential, one, now)
        return after, (after.particles.position, -after.log_density)

    start = Sample(particles, jnp.zeros_like(particles.log_weight))
    _, (position, log_det) = jax.lax.scan(body, start, maps)
    return Trajectory(
        time,
        jnp.concatenate([particles.position[None], position]),
        jnp.broadcast_to(particles.log_weight, (time.shape[0], particles.log_weight.size)),
        jnp.concatenate([start.log_density[None], log_det]),
    )


def flow_log_density(
    potential: ConvexPotential,
    maps: ConvexMap,
    source_log_density: LogDensity,
    x: Float[Array, "n d"],
) -> Float[Array, " n"]:
    """``log ρ_k`` at any points, by the inverse maps; NaN where an inverse has not converged.

    Args:
      potential, maps: the flow; ``k`` stacked maps.
      source_log_density: ``x: [d] -> log ρ_0(x)``.
      x: ``[n, d]``.
    """
    start, log_det = carry_back(potential, maps, x)
    return jax.vmap(source_log_density)(start) - log_det


def carry_back(
    potential: ConvexPotential, maps: ConvexMap, x: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Where points come from through stacked maps, and the log-determinant of the way from there to them."""

    def body(now: tuple[Array, Array], one: ConvexMap):
        y, log_det = now

        def back(some: Float[Array, "m d"]) -> tuple[Array, Array]:
            before = pull_back(potential, one.params, (some - one.centre) / one.scale)
            return one.centre + one.scale * before, push_forward(potential, one.params, before)[1]

        before, more = in_blocks(back, y, _row_length(one))
        return (before, log_det + more), None

    return jax.lax.scan(body, (x, jnp.zeros(x.shape[0], x.dtype)), maps, reverse=True)[0]


def _moved(potential: ConvexPotential, one: ConvexMap, sample: Sample) -> tuple[Sample, Scalar]:
    """The sample after a map, and ``½ E|T(x) - x|²``."""
    particles, log_density = sample
    standard = (particles.position - one.centre) / one.scale
    y, log_det = in_blocks(lambda x: push_forward(potential, one.params, x), standard, _row_length(one))
    transport = 0.5 * one.scale**2 * jnp.vdot(particles.weight, jnp.sum((y - standard) ** 2, axis=1))
    moved = particles._replace(position=one.centre + one.scale * y)
    return Sample(moved, log_density - log_det), transport


def _row_length(one: ConvexMap) -> int:
    """Numbers of one particle on its way through the network."""
    return max(leaf.size for leaf in jax.tree.leaves(one.params))


def _batches(sample: Sample, size: int) -> Callable[[Key], Sample]:
    """Draws of neighbours, beyond the last comes the first, moved to the mean and covariance of the sample.

    For affine maps and quadratic energies the objective is then that of the whole sample, without noise.
    """
    num, dim = sample.particles.position.shape
    if num <= size:
        return lambda key: sample
    ring = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[: size - 1]]), sample)
    mean, covariance = moments(sample.particles)

    def draw(key: Key) -> Sample:
        first = jax.random.randint(key, (), 0, num)
        some = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), ring)
        particles = some.particles.normalise()
        if size > 2 * dim:
            particles = with_moments(particles, mean, covariance)
        return some._replace(particles=particles)

    return draw
