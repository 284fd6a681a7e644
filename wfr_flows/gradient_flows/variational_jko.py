"""Variational JKO: gradient flows from samples alone, by saddle points that need no density."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from wfr_flows.gradient_flows.icnn_jko import ConvexMap
from wfr_flows.gradient_flows.interaction import interaction_force
from wfr_flows.gradient_flows.maps import TransportMap
from wfr_flows.gradient_flows.ratios import LogRatio
from wfr_flows.gradient_flows.saddle import (
    Dual,
    FreeEnergy,
    drawing,
    dual_of,
    fit_ratio,
    look,
    saddle,
    value_of,
)
from wfr_flows.measures import Particles, centre_and_scale
from wfr_flows.numerics import in_blocks
from wfr_flows.training import Method, MinimaxState, copied, cosine_adam
from wfr_flows.typing import Array, ArrayLike, Float, Key, Params, Scalar

Optimiser = Callable[[int], optax.GradientTransformation]
"""``number of updates -> optax transformation``, made anew for every step."""

# Numbers of one particle on its way through a network.
_ROW_LENGTH = 1024


class Move(NamedTuple):
    """What one step does to any point; those of many steps, stacked, are the flow: see `push`.

    Attributes:
      params: of the map.
      centre, scale: the map acts on ``(x - centre)/scale``.
      inertia: points are first carried along their last displacement, as far as the scheme of order 2 says.
      forward: step size of the explicit push by the interaction; 0 for none.
      sources: the particles that push; none in a scheme without.
    """

    params: Params
    centre: Float[Array, " d"]
    scale: Scalar
    inertia: Scalar
    forward: Scalar
    sources: Particles


class FlowState(NamedTuple):
    """What the next step needs.

    Attributes:
      particles: of ``ρ_k``.
      previous: their positions at step ``k - 1``.
      previous_step_size: ``inf`` before the first step.
      map_params, ratio_params: where the next step begins.
    """

    particles: Particles
    previous: Float[Array, "n d"]
    previous_step_size: Scalar
    map_params: Params
    ratio_params: Params


class FlowInfo(NamedTuple):
    """Diagnostics of one step.

    Attributes:
      move: what it did.
      energy: ``F(ρ_(k+1))`` over all particles, its internal part by the dual value.
      transport: ``½ E|T(x) - x|²`` over the step size, in the last batch.
      covered: share of the particles that ended in the support of the reference law. Below 1 for a uniform
        reference means that its margin is too small.
    """

    move: Move
    energy: Scalar
    transport: Scalar
    covered: Scalar


def variational_jko(
    energy: FreeEnergy,
    transport: TransportMap,
    ratio: LogRatio | None = None,
    *,
    num_iterations: int = 300,
    inner_steps: int = 3,
    outer_steps: int = 1,
    batch: int | None = 1024,
    order: int = 1,
    forward_backward: bool = False,
    num_sources: int | None = None,
    restart: bool = False,
    start_steps: int = 500,
    average_decay: float = 0.0,
    map_optimiser: Optimiser = cosine_adam,
    ratio_optimiser: Optimiser = cosine_adam,
) -> Method:
    """Steps ``ρ_(k+1) = T#ρ_k``, ``T`` of ``min_T E|T(x) - x|²/2a + F(T#ρ_k)`` ([VWGF] eqs. 5, 9).

    The internal energy is a supremum over ratios ``h``, see `Internal`: every step is a saddle point. All
    particles move once, after it, by the map without dropout, so that ``K`` steps cost ``O(K)``.

    Args:
      energy: ``F``.
      transport: the map ``T``, the identity at first.
      ratio: the functions ``h``; needed where there is an internal energy.
      num_iterations: of a step; each is ``inner_steps`` updates of ``h``, then ``outer_steps`` of ``T``.
      batch: particles drawn for an iteration, and as many of the reference law; None for all particles, which
        makes a step without internal energy deterministic.
      order: 1 for JKO; 2 for BDF2 along particles (after Matthes and Plazotta, 2019), which is JKO with
        step size ``a (1+r)/(1+2r)`` from ``x_k + r²(x_k - x_(k-1))/(1+2r)``, ``r`` the ratio of this step
        size to the last.
      forward_backward: move by ``-a ∇(W*ρ_k)`` first ([VWGF] eqs. 12-13), not ``W`` in the saddle point.
      num_sources: how many particles push, the first of the cloud; all by default.
      restart: begin every map at the identity, not where the last step ended.
      start_steps: updates of ``h`` before the first step.
      average_decay: in [0, 1), of an average of the map over the iterations of a step.
      map_optimiser, ratio_optimiser: see `Optimiser`.

    Returns:
      A `training.Method`: ``init((key, particles)) -> FlowState`` of particles of any mass, made 1;
      ``step(key, state, step_size) -> (FlowState, FlowInfo)`` for any step size ``a > 0``.

    Raises:
      ValueError: options out of their ranges, or that exclude each other.
    """
    scheme = _Scheme(
        *(energy, transport, ratio, num_iterations, inner_steps, outer_steps, batch, order),
        *(forward_backward, num_sources if forward_backward else 0, restart, start_steps, average_decay),
        *(map_optimiser, ratio_optimiser),
    )
    _check(scheme)
    return Method(partial(_init, scheme), partial(_step, scheme))


class _Scheme(NamedTuple):
    # The options of `variational_jko`, in order.
    energy: FreeEnergy
    transport: TransportMap
    ratio: LogRatio | None
    num_iterations: int
    inner_steps: int
    outer_steps: int
    batch: int | None
    order: int
    forward_backward: bool
    num_sources: int | None
    restart: bool
    start_steps: int
    average_decay: float
    map_optimiser: Optimiser
    ratio_optimiser: Optimiser

    def dual(self, measure: Particles) -> Dual | None:
        if self.energy.internal is None or self.ratio is None:
            return None
        return dual_of(self.energy.internal, self.ratio, measure)


def _init(scheme: _Scheme, start: tuple[Key, Particles]) -> FlowState:
    (map_key, ratio_key), particles = jax.random.split(start[0]), start[1].normalise()
    dual, ratio_params, num = scheme.dual(particles), {}, scheme.start_steps
    if dual is not None:
        ratio_params, _ = fit_ratio(
            ratio_key, dual, particles, scheme.ratio_optimiser(num), num_steps=num, batch=scheme.batch
        )
    before = jnp.asarray(jnp.inf, particles.position.dtype)
    transport = scheme.transport.init(map_key)
    return copied(FlowState(particles, particles.position, before, transport, ratio_params))


def _step(scheme: _Scheme, key: Key, state: FlowState, step_size: ArrayLike) -> tuple[FlowState, FlowInfo]:
    start_key, solve_key, look_key = jax.random.split(key, 3)
    energy, transport = scheme.energy, scheme.transport
    step_size = jnp.asarray(step_size, state.previous.dtype)
    growth = step_size / state.previous_step_size if scheme.order == 2 else jnp.zeros_like(step_size)
    implicit = step_size * (1 + growth) / (1 + 2 * growth)
    move = Move(
        transport.init(start_key) if scheme.restart else state.map_params,
        *centre_and_scale(state.particles),
        growth**2 / (1 + 2 * growth),
        step_size if scheme.forward_backward else jnp.zeros_like(step_size),
        _first(state.particles, scheme.num_sources),
    )
    now = state.particles.position
    cloud = state.particles._replace(position=_before(energy, move, now, state.previous))
    dual = scheme.dual(cloud)
    learned, ratio_params, cost = _solve(scheme, solve_key, cloud, move, state.ratio_params, dual, implicit)
    move = move._replace(params=learned)
    moved = cloud._replace(position=_in_blocks(transport, move, cloud.position))
    reached, covered = _measure(energy, dual, ratio_params, moved, look_key)
    return FlowState(moved, now, step_size, learned, ratio_params), FlowInfo(move, reached, cost, covered)


def _solve(
    scheme: _Scheme,
    key: Key,
    cloud: Particles,
    move: Move,
    ratio_params: Params,
    dual: Dual | None,
    step_size: Scalar,
) -> tuple[Params, Params, Scalar]:
    """The saddle point of one step, map and ratio, and the transport cost in the last batch."""
    energy, num = scheme.energy, scheme.num_iterations
    if scheme.forward_backward:
        energy = energy._replace(interaction=None)
    if energy == FreeEnergy():
        # Nothing is left to minimise. Adam would take the rounding of the identity for a gradient.
        return move.params, ratio_params, jnp.zeros_like(step_size)
    problem = saddle(
        energy,
        dual,
        lambda params, x, key: _apply(scheme.transport, move._replace(params=params), x, key),
        step_size,
        inner_optimiser=scheme.ratio_optimiser(num * scheme.inner_steps),
        outer_optimiser=scheme.map_optimiser(num * scheme.outer_steps),
        inner_steps=scheme.inner_steps,
        outer_steps=scheme.outer_steps,
        average_decay=scheme.average_decay,
        project=scheme.transport.project,
    )
    draw = drawing(cloud, scheme.batch)

    def body(state: MinimaxState, key: Key):
        draw_key, step_key = jax.random.split(key)
        state, info = problem.step(step_key, state, draw(draw_key))
        return state, info.outer_info

    start = problem.init((move.params, ratio_params))
    solved, costs = jax.lax.scan(body, start, jax.random.split(key, num))
    return solved.average, solved.inner, costs[-1]


def evolve(
    method: Method, key: Key, state: FlowState, step_sizes: Float[Array, " k"]
) -> tuple[FlowState, FlowInfo]:
    """One step for each step size, as a scan; infos are stacked, and their moves are what `push` takes.

    Nothing here stops a flow that turns non-finite; `training.run`, its sample ``lambda key: step_size``,
    does, and keeps the last good state.
    """

    def body(state: FlowState, now: tuple[Key, Scalar]) -> tuple[FlowState, FlowInfo]:
        return method.step(now[0], state, now[1])

    return jax.lax.scan(body, state, (jax.random.split(key, step_sizes.shape[0]), step_sizes))


def push(
    energy: FreeEnergy, transport: TransportMap, moves: Move, position: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, "k n d"]]:
    """Carry points of ``ρ_0`` through the moves of all steps.

    Args:
      energy, transport: as the flow was learned with.
      moves: stacked, of `evolve`.
      position: ``[n, d]``.

    Returns:
      The points in the end, and after every step; compilation drops what is not used.
    """

    def body(carry: tuple[Array, Array], move: Move):
        now, previous = carry
        after = _in_blocks(transport, move, _before(energy, move, now, previous))
        return (after, now), after

    (end, _), path = jax.lax.scan(body, (position, position), moves)
    return end, path


def convex_maps(moves: Move) -> ConvexMap:
    """The moves of `evolve` with a `gradient_of`, as maps with a density: see `carry` and `flow_log_density`.

    NaN for a scheme of order 2, which extrapolates before it maps.

    Raises:
      ValueError: moves of a forward-backward scheme.
    """
    if moves.sources.log_weight.shape[-1] > 0:
        raise ValueError("moves of a forward-backward scheme have no inverse here; use the joint scheme.")
    scale = jnp.where(moves.inertia == 0, moves.scale, jnp.nan)
    return ConvexMap(moves.params, moves.centre, scale)


def _before(energy: FreeEnergy, move: Move, now: Float[Array, "n d"], previous: Float[Array, "n d"]) -> Array:
    """Where the map finds points: extrapolated, pushed by the interaction."""
    position = now + move.inertia * (now - previous)
    if energy.interaction is None or move.sources.log_weight.shape[-1] == 0:
        return position
    return position - move.forward * interaction_force(energy.interaction, now, move.sources)


def _apply(transport: TransportMap, move: Move, x: Float[Array, "n d"], key: Key | None = None) -> Array:
    return move.centre + move.scale * transport.apply(move.params, (x - move.centre) / move.scale, key)


def _in_blocks(transport: TransportMap, move: Move, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return in_blocks(lambda some: _apply(transport, move, some), x, _ROW_LENGTH)


def _first(measure: Particles, num: int | None) -> Particles:
    """The first particles, of mass 1."""
    some = Particles(measure.position[:num], measure.log_weight[:num])
    return some if num == 0 else some.normalise()


def _measure(
    energy: FreeEnergy, dual: Dual | None, params: Params, measure: Particles, key: Key
) -> tuple[Scalar, Scalar]:
    """The energy of particles, and the share of them that the reference law covers."""
    value, covered = energy.explicit(measure), jnp.ones((), measure.position.dtype)
    if dual is None:
        return value, covered
    inside = dual.reference.log_density(measure.position) > -jnp.inf
    return value + value_of(dual, params, look(dual, key, measure)), jnp.sum(measure.weight * inside)


def _check(scheme: _Scheme) -> None:
    energy, order = scheme.energy, scheme.order
    if energy == FreeEnergy():
        raise ValueError("energy has no terms; give it an internal energy, a potential or an interaction.")
    if energy.internal is not None and scheme.ratio is None:
        raise ValueError("energy has an internal part and ratio is None; give functions, as log_ratio(dim).")
    for name in ("num_iterations", "inner_steps", "outer_steps", "start_steps"):
        if getattr(scheme, name) < 1:
            raise ValueError(f"{name} is {getattr(scheme, name)}; give at least 1.")
    if scheme.batch is not None and scheme.batch < 2:
        raise ValueError(f"batch is {scheme.batch}; give at least 2, or None for all particles.")
    if order not in {1, 2}:
        raise ValueError(f"order is {order}; give 1 or 2.")
    if scheme.forward_backward and (energy.interaction is None or order == 2):
        raise ValueError("forward_backward needs an interaction and order 1; leave it out.")
    if not 0 <= scheme.average_decay < 1:
        raise ValueError(f"average_decay is {scheme.average_decay}; give a number in [0, 1).")
