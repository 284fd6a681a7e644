"""Q-flow [QF]: a flow between two samples that is moved towards optimal transport."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from wfr_flows.dynamics import Field, Geometry, Trajectory, carry, time_grid
from wfr_flows.geodesics import Loss
from wfr_flows.geodesics.uot_gen import Schedule
from wfr_flows.measures import Particles
from wfr_flows.numerics import combine, concrete, is_floating, partition
from wfr_flows.potentials import Potential
from wfr_flows.refinement.logistic import logistic_loss
from wfr_flows.refinement.pairs import flow_matching, joined
from wfr_flows.static.diracs import pair_cost
from wfr_flows.training import (
    LossFn,
    Method,
    TrainState,
    begin,
    descend,
    gradient_method,
    value_and_gradient,
)
from wfr_flows.typing import Array, ArrayLike, Key, Params, Scalar

Ends = tuple[Particles, Particles]
FourEnds = tuple[Particles, Particles, Particles, Particles]


class QParams(NamedTuple):
    """Parameters of a flow and of the classifiers at its ends.

    Attributes:
      flow: of the field.
      ratio: of two ratio networks: at the end of the target, then at that of the source.
    """

    flow: Params
    ratio: tuple[Params, Params]


class QState(NamedTuple):
    """What the next step of `q_flow` needs."""

    flow: TrainState
    ratio: TrainState


class QTerms(NamedTuple):
    """Terms of the loss, each ``[2]``: from the source to the target, and back.

    Attributes:
      divergence: ``-Σ w r`` at the end, an estimate of the Kullback-Leibler divergence from the sample there.
      transport: see `transport_cost`.
      logistic: mean loss of the classifiers; ``2 log 2`` at mass 1 where they see no difference.
    """

    divergence: Scalar
    transport: Scalar
    logistic: Scalar


def transport_cost(trajectory: Trajectory, geometry: Geometry) -> Scalar:
    """``Σ_k Σ_i 2 d²((w, x)_i(t_{k-1}), (w, x)_i(t_k)) / h_k`` of weighted particles on their way.

    ``d²`` is the distance between two Diracs. At ``alpha = inf`` this is ``Σ_k E|x(t_k) - x(t_{k-1})|²/h_k``
    ([QF] eq. 5), the cost of the path on the scale of ``W₂²``, which it reaches where the path is optimal; at
    finite ``alpha``, on that of twice the squared (spherical) distance.
    """
    weight = jnp.exp(trajectory.log_weight)
    squared = jnp.sum(jnp.diff(trajectory.position, axis=0) ** 2, axis=-1)
    cost = pair_cost(squared, weight[:-1], weight[1:], geometry.alpha)
    return 2 * jnp.sum(cost / jnp.abs(jnp.diff(trajectory.time))[:, None])


def init_params(field: Field, ratio: Potential, key: Key) -> QParams:
    """Parameters to begin with where there is no flow yet; else ``_replace(flow=...)``."""
    flow_key, *ratio_keys = jax.random.split(key, 3)
    return QParams(field.init(flow_key), (ratio.init(ratio_keys[0]), ratio.init(ratio_keys[1])))


def q_flow(
    field: Field,
    geometry: Geometry,
    ratio: Potential,
    optimiser: optax.GradientTransformation,
    ratio_optimiser: optax.GradientTransformation,
    *,
    transport_weight: float | Schedule = 0.1,
    matching_weight: float = 0.0,
    num_steps: int = 8,
    ratio_steps: int = 4,
    average_decay: float = 0.0,
) -> Method:
    """Alternating descent on ``KL + γ·cost`` in both directions through one flow ([QF] eqs. 3-5).

    In a step both batches are carried to the other end. There classifiers ``r``, one for each end, take
    ``ratio_steps`` steps on ``log(dν/dμ₁)`` between what arrived and the sample, then the flow takes
    one on ``-Σ w r(x(1)) + γ·cost`` of both directions. With finite ``alpha`` weights are learned with the
    motion and both ratios are weighted; a geometry that is not spherical compares masses too.
    Batches are ``(source, target)``, weighted `Particles`, of masses to be compared.

    Args:
      field, geometry: the flow; its parameters may come from `flow_matching`, or from any velocity.
      ratio: a potential whose value at time 1, or 0, is the log-ratio at that end.
      optimiser, ratio_optimiser: optax transformations.
      transport_weight: ``γ``, a number or a schedule of the step; ends miss the samples in proportion to it.
      matching_weight: of `flow_matching` to the pairs that the flow makes of the batch. Unlike the cost it
        does not pull the ends away; for the field of a potential it is least at optimal transport. 0: [QF].
      num_steps: Runge-Kutta steps, and intervals of the cost.
      ratio_steps: of the classifiers in a step, each on its share of the batch.
      average_decay: as in `training.gradient_method`, of the flow.

    Returns:
      A `training.Method` from `QParams` to `QState`; infos are `QTerms`. ValueError: fewer than one step.
    """
    if min(num_steps, ratio_steps) < 1:
        raise ValueError(f"num_steps is {num_steps} and ratio_steps {ratio_steps}; give at least 1.")
    weight_at = transport_weight if callable(transport_weight) else lambda step: transport_weight
    ratio_method = gradient_method(_ratio_loss(ratio), ratio_optimiser)
    both_ways = partial(_both_ways, field, geometry, num_steps)
    matched = not (concrete(matching_weight) and matching_weight == 0)

    def init(params: QParams) -> QState:
        return QState(begin(optimiser, params.flow), ratio_method.init(params.ratio))

    def step(key: Key, state: QState, batch: Ends) -> tuple[QState, QTerms]:
        match_key, ratio_key = jax.random.split(key)
        paths, pull_back = _pull_back(partial(both_ways, batch), state.flow.params)
        ratios, logistic = _trained(ratio_method, ratio_steps, ratio_key, state.ratio, _arrived(paths), batch)
        cost = partial(_cost, ratio, ratios.params, geometry, weight_at(state.flow.step))
        (value, (divergence, transport)), change = jax.value_and_grad(cost, has_aux=True)(paths)
        (gradient,) = pull_back(change)
        straight = partial(_alone, _straightness(field, geometry, paths), match_key) if matched else None
        if straight is not None:
            value, gradient = _added(straight, matching_weight, state.flow.params, value, gradient)
        value_fn = partial(_value, lambda params: cost(both_ways(batch, params)), straight, matching_weight)
        flow = descend(optimiser, state.flow, gradient, value, value_fn, average_decay=average_decay)
        return QState(flow, ratios), QTerms(divergence, transport, logistic)

    return Method(init, step)


def _both_ways(
    field: Field, geometry: Geometry, num_steps: int, batch: Ends, params: Params
) -> tuple[Trajectory, Trajectory]:
    """The source forward, the target back."""
    source, target = batch
    take = partial(carry, field, geometry, params)
    return take(source, time_grid(num_steps)), take(target, time_grid(num_steps, reverse=True))


def _cost(
    ratio: Potential,
    params: tuple[Params, Params],
    geometry: Geometry,
    weight: ArrayLike,
    paths: tuple[Trajectory, Trajectory],
) -> tuple[Scalar, tuple[Array, Array]]:
    """The loss of the flow under classifiers that stand still, and its two terms, each ``[2]``."""
    arrived = _arrived(paths)
    values = _log_ratios(ratio, params, arrived)
    divergence = jnp.stack([-jnp.vdot(m.weight, r) for m, r in zip(arrived, values, strict=True)])
    transport = jnp.stack([transport_cost(path, geometry) for path in paths])
    return jnp.sum(divergence + weight * transport), (divergence, transport)


def _straightness(field: Field, geometry: Geometry, paths: tuple[Trajectory, Trajectory]) -> Loss:
    """Matching on the pairs that the flow makes now."""
    pairs = joined(*paths)
    return flow_matching(field, geometry, pairs, num_times=16, num_pairs=pairs.source_mass.size // 16)


def _pull_back(function: Callable, params: Params):
    """`jax.vjp` in the floating-point leaves of parameters."""
    trained, rest = partition(params, is_floating)
    return jax.vjp(lambda some: function(combine(some, rest)), trained)


def _value(cost: Callable, straight: Callable | None, matching_weight: float, params: Params) -> Scalar:
    """What the flow's step descends on."""
    value = cost(params)[0]
    return value if straight is None else value + matching_weight * straight(params)[0]


def _added(straight: Callable, matching_weight: float, params: Params, value: Scalar, gradient: Params):
    """Value and gradient with those of matching."""
    (bent, _), slope = value_and_gradient(straight, params)
    gradient = jax.tree.map(lambda a, b: a + matching_weight * b, gradient, slope)
    return value + matching_weight * bent, gradient


def _alone(loss: Loss, key: Key, params: Params) -> tuple[Scalar, tuple[()]]:
    """A loss at one key, without diagnostics."""
    return loss(params, key), ()


def _arrived(paths: tuple[Trajectory, Trajectory]) -> Ends:
    """Particles at time 1, and at time 0."""
    there, back = paths
    return there.at(-1), back.at(-1)


def _trained(
    method: Method, num_steps: int, key: Key, state: TrainState, arrived: Ends, batch: Ends
) -> tuple[TrainState, Array]:
    """Classifiers after steps on shares of the batch, and their mean losses ``[2]``."""
    source, target = batch
    measures = (*arrived, target, source)
    shares = tuple(_shares(measure, num_steps) for measure in measures)

    def step(state: TrainState, own: tuple[Key, tuple[Particles, ...]]) -> tuple[TrainState, Array]:
        state, (_, losses) = method.step(own[0], state, own[1])
        return state, losses

    state, losses = jax.lax.scan(step, state, (jax.random.split(key, num_steps), shares))
    return state, jnp.mean(losses, axis=0)


def _log_ratios(ratio: Potential, params: tuple[Params, Params], ends: Ends) -> tuple[Array, Array]:
    """``[n]`` log-ratios at time 1, and at time 0."""
    over_points = jax.vmap(ratio.value, (None, None, 0))
    one, zero = (jnp.asarray(time, ends[0].position.dtype) for time in (1.0, 0.0))
    return (
        over_points(params[0], one, ends[0].position),
        over_points(params[1], zero, ends[1].position),
    )


def _ratio_loss(ratio: Potential) -> LossFn:
    def loss(params: tuple[Params, Params], key: Key, batch: FourEnds) -> tuple[Scalar, Array]:
        del key
        arrived, there = (batch[0], batch[1]), (batch[2], batch[3])
        values = _log_ratios(ratio, params, arrived), _log_ratios(ratio, params, there)
        losses = jnp.stack(
            [logistic_loss(values[0][i], arrived[i].weight, values[1][i], there[i].weight) for i in (0, 1)]
        )
        return jnp.sum(losses), losses

    return loss


def _shares(measure: Particles, num: int) -> Particles:
    """``num`` parts of one size, each of about the same mass as all; what does not fit is left out."""
    size = measure.log_weight.size // num

    def parts(leaf: Array) -> Array:
        return jnp.moveaxis(leaf[: size * num].reshape(size, num, *leaf.shape[1:]), 1, 0)

    return Particles(parts(measure.position), parts(measure.log_weight) + jnp.log(num))
