"""Saddle points: some steps of ascent for one player, then some of descent for the other, as one step."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from wfr_flows.numerics import combine, partition
from wfr_flows.training.method import Method, averaged, copied, start_of, updated, value_and_gradient
from wfr_flows.typing import Array, Int, Key, Params, PyTree, Scalar


class AscentFn(Protocol):
    """``(inner, key, shown) -> value``, what the inner player makes large; ``shown`` is as `ShowFn` says."""

    def __call__(self, inner: Params, key: Key, shown: PyTree, /) -> Scalar: ...


class DescentFn(Protocol):
    """``(outer, inner, key, batch) -> (value, info)``, what the outer player makes small."""

    def __call__(self, outer: Params, inner: Params, key: Key, batch: PyTree, /) -> tuple[Scalar, Any]: ...


class ShowFn(Protocol):
    """``(outer, key, batch) -> shown``, what the inner player sees of the outer one, once a step."""

    def __call__(self, outer: Params, key: Key, batch: PyTree, /) -> PyTree: ...


class MinimaxState(NamedTuple):
    """What the next step needs.

    Attributes:
      outer, inner: parameters of the player that descends and of the one that ascends.
      outer_optimiser, inner_optimiser: their optax states.
      average: exponential moving average of ``outer``.
      step: steps done.
    """

    outer: Params
    inner: Params
    outer_optimiser: PyTree
    inner_optimiser: PyTree
    average: Params
    step: Int[Array, ""]


class MinimaxInfo(NamedTuple):
    """Diagnostics of one step.

    Attributes:
      inner_value: of the ascent, before its last update.
      outer_value: of the descent, before its last update.
      outer_info: what the descent returns beside it.
    """

    inner_value: Scalar
    outer_value: Scalar
    outer_info: Any


def minimax(
    ascent: AscentFn,
    descent: DescentFn,
    inner_optimiser: optax.GradientTransformation,
    outer_optimiser: optax.GradientTransformation,
    *,
    inner_steps: int,
    outer_steps: int = 1,
    show: ShowFn = lambda outer, key, batch: (outer, batch),
    inner_project: Callable[[Params], Params] = lambda inner: inner,
    outer_project: Callable[[Params], Params] = lambda outer: outer,
    average_decay: float = 0.0,
) -> Method:
    """``min_outer max_inner`` by alternation: ``inner_steps`` updates up, then ``outer_steps`` down.

    Each player has its own value, so that a penalty of one does not weigh on the other. ``show`` runs once a
    step: what the inner player needs of the outer one (moved samples, say) is computed once for all its
    updates. By default it is shown ``(outer, batch)``, and may draw anew with the key of each update.

    Args:
      ascent, descent, show: see `AscentFn`, `DescentFn`, `ShowFn`.
      inner_optimiser, outer_optimiser: optax transformations; both minimise, signs are taken care of.
      inner_steps, outer_steps: at least 1.
      inner_project, outer_project: applied to parameters after every update, as for convex networks.
      average_decay: in [0, 1), of the average of the outer player, once a step.

    Returns:
      A `training.Method`: ``init((outer, inner)) -> MinimaxState``; the info of a step is `MinimaxInfo`.

    Raises:
      ValueError: a number out of its range.
    """
    for name, steps in (("inner_steps", inner_steps), ("outer_steps", outer_steps)):
        if steps < 1:
            raise ValueError(f"{name} is {steps}; give at least 1.")
    if not 0 <= average_decay < 1:
        raise ValueError(f"average_decay is {average_decay}; give a number in [0, 1).")

    def init(params: tuple[Params, Params]) -> MinimaxState:
        outer, inner = params
        optimisers = start_of(outer_optimiser, outer), start_of(inner_optimiser, inner)
        return copied(MinimaxState(outer, inner, *optimisers, outer, jnp.zeros((), jnp.int32)))

    def step(key: Key, state: MinimaxState, batch: PyTree) -> tuple[MinimaxState, MinimaxInfo]:
        show_key, inner_key, outer_key = jax.random.split(key, 3)
        shown = _still(show(state.outer, show_key, batch))
        climb = _updates(lambda inner, key: (-ascent(inner, key, shown), ()), inner_optimiser, inner_project)
        (inner, inner_state), (loss, _) = climb(inner_key, state.inner, state.inner_optimiser, inner_steps)
        fall = _updates(lambda outer, key: descent(outer, inner, key, batch), outer_optimiser, outer_project)
        (outer, outer_state), (value, info) = fall(outer_key, state.outer, state.outer_optimiser, outer_steps)
        average = averaged(outer, state.average, average_decay)
        state = MinimaxState(outer, inner, outer_state, inner_state, average, state.step + 1)
        return state, MinimaxInfo(-loss, value, info)

    return Method(init, step)


def _updates(
    loss: Callable[[Params, Key], tuple[Scalar, Any]],
    optimiser: optax.GradientTransformation,
    project: Callable[[Params], Params],
):
    """A scan of updates of one player, and the value and info before the last of them."""

    def updates(key: Key, params: Params, state: PyTree, num: int):
        arrays, rest = partition(params)

        def update(carry: tuple[Params, PyTree], key: Key):
            params, state = combine(carry[0], rest), carry[1]

            def at(params: Params) -> tuple[Scalar, Any]:
                return loss(params, key)

            (value, info), gradient = value_and_gradient(at, params)
            params, state = updated(optimiser, gradient, state, params, value, lambda p: at(p)[0])
            return (partition(project(params))[0], state), (value, info)

        (arrays, state), told = jax.lax.scan(update, (arrays, state), jax.random.split(key, num))
        return (combine(arrays, rest), state), jax.tree.map(lambda leaf: leaf[-1], told)

    return updates


def _still(tree: PyTree) -> PyTree:
    """The tree as a constant of derivatives."""
    arrays, rest = partition(tree)
    return combine(jax.lax.stop_gradient(arrays), rest)
