"""Gradient methods as ``init`` and ``step``."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from wfr_flows.numerics import combine, concrete, is_array, is_floating, partition
from wfr_flows.typing import Array, Int, Key, Params, PyTree, Scalar


class LossFn(Protocol):
    """``(params, key, batch) -> (loss, info)``; ``info`` is a tree of scalars for the log."""

    def __call__(self, params: Params, key: Key, batch: PyTree, /) -> tuple[Scalar, Any]: ...


class TrainState(NamedTuple):
    """What the next step needs: an immutable tree, so it can be saved, replaced and vmapped.

    Attributes:
      params: the parameters.
      optimiser: the optax state.
      average: exponential moving average of the parameters; the parameters themselves without averaging.
      step: steps done.
    """

    params: Params
    optimiser: PyTree
    average: Params
    step: Int[Array, ""]


class Method(NamedTuple):
    """An iterative method.

    Attributes:
      init: ``params -> state``.
      step: ``(key, state, batch) -> (state, info)``; ``info`` is diagnostics only.
    """

    init: Callable[[Params], PyTree]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, Any]]


def gradient_method(
    loss: LossFn, optimiser: optax.GradientTransformation, *, average_decay: float = 0.0
) -> Method:
    """Stochastic descent on ``loss`` with an optax optimiser; the info is ``(loss, its info)``.

    Floating-point leaves of the parameters are trained. Others, such as the functions among the leaves of an
    equinox module, stay what they are.

    Args:
      loss: see `LossFn`.
      optimiser: any optax transformation. One that searches a line, as `optax.lbfgs` does, sees the loss at
        the key and the batch of the step.
      average_decay: in [0, 1); the average forgets by this factor in every step.

    Raises:
      ValueError: ``average_decay`` outside [0, 1).
    """
    if not 0 <= average_decay < 1:
        raise ValueError(f"average_decay is {average_decay}; give a number in [0, 1).")

    def init(params: Params) -> TrainState:
        return begin(optimiser, params)

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Any]:
        def at(params: Params) -> tuple[Scalar, Any]:
            return loss(params, key, batch)

        (value, info), gradient = value_and_gradient(at, state.params)
        state = descend(optimiser, state, gradient, value, lambda p: at(p)[0], average_decay=average_decay)
        return state, (value, info)

    return Method(init, step)


def begin(optimiser: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first step, all of it in arrays of its own, so that it can be donated."""
    state = TrainState(params, start_of(optimiser, params), params, jnp.zeros((), jnp.int32))
    return copied(state)


def copied(tree: PyTree) -> PyTree:
    """The tree with copies of its arrays: no two leaves share memory, nor do they with those given."""

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and concrete(leaf):
            # Without a program for every shape.
            return jax.device_put(leaf, may_alias=False)
        return jnp.array(leaf, copy=True) if is_array(leaf) else leaf

    return jax.tree.map(copy, tree)


def start_of(optimiser: optax.GradientTransformation, params: Params) -> PyTree:
    """The state of an optimiser of the floating-point leaves, before its first update."""
    return optimiser.init(partition(params, is_floating)[0])


def value_and_gradient(
    loss: Callable[[Params], tuple[Scalar, Any]], params: Params
) -> tuple[tuple[Scalar, Any], Params]:
    """``((value, info), gradient)`` of a loss; the gradient has None where a leaf is not floating-point."""
    trained, rest = partition(params, is_floating)
    return jax.value_and_grad(lambda some: loss(combine(some, rest)), has_aux=True)(trained)


def updated(
    optimiser: optax.GradientTransformation,
    gradient: Params,
    state: PyTree,
    params: Params,
    value: Scalar,
    value_fn: Callable[[Params], Scalar],
) -> tuple[Params, PyTree]:
    """Parameters and the state of the optimiser after one update of the floating-point leaves.

    Args:
      optimiser: any optax transformation.
      gradient: of `value_and_gradient`.
      state: of the optimiser.
      params: before the update.
      value: of the loss there.
      value_fn: the loss, ``params -> scalar``, for optimisers that search a line.
    """
    trained, rest = partition(params, is_floating)
    change, state = optax.with_extra_args_support(optimiser).update(
        gradient,
        state,
        trained,
        value=value,
        grad=gradient,
        value_fn=lambda some: value_fn(combine(some, rest)),
    )
    return combine(optax.apply_updates(trained, change), rest), state


def averaged(params: Params, average: Params, decay: float) -> Params:
    """The moving average of the floating-point leaves after new parameters; other leaves are the new ones."""
    (new, rest), (old, _) = partition(params, is_floating), partition(average, is_floating)
    return combine(optax.incremental_update(new, old, 1 - decay), rest)


def descend(
    optimiser: optax.GradientTransformation,
    state: TrainState,
    gradient: Params,
    value: Scalar,
    value_fn: Callable[[Params], Scalar],
    *,
    average_decay: float = 0.0,
) -> TrainState:
    """The state after one step of the optimiser along a gradient that is known; arguments as in `updated`."""
    params, optimiser_state = updated(optimiser, gradient, state.optimiser, state.params, value, value_fn)
    average = averaged(params, state.average, average_decay)
    return TrainState(params, optimiser_state, average, state.step + 1)


def is_finite(tree: PyTree) -> Scalar:
    """Whether every floating-point entry of a tree is finite."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if is_floating(leaf)]
    return jnp.all(jnp.array(leaves)) if leaves else jnp.array(True)
