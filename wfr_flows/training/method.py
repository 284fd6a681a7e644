"""Gradient methods as ``init`` and ``step``."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

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

    Args:
      loss: see `LossFn`.
      optimiser: any optax transformation.
      average_decay: in [0, 1); the average forgets by this factor in every step.

    Raises:
      ValueError: ``average_decay`` outside [0, 1).
    """
    if not 0 <= average_decay < 1:
        raise ValueError(f"average_decay is {average_decay}; give a number in [0, 1).")

    def init(params: Params) -> TrainState:
        return begin(optimiser, params)

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Any]:
        (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, key, batch)
        return descend(optimiser, state, gradient, average_decay=average_decay), (value, info)

    return Method(init, step)


def begin(optimiser: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimiser.init(params), params, jnp.zeros((), jnp.int32))


def descend(
    optimiser: optax.GradientTransformation,
    state: TrainState,
    gradient: Params,
    *,
    average_decay: float = 0.0,
) -> TrainState:
    """The state after one step of the optimiser along a gradient that is known."""
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    average = optax.incremental_update(params, state.average, 1 - average_decay)
    return TrainState(params, optimiser_state, average, state.step + 1)


def is_finite(tree: PyTree) -> Scalar:
    """Whether every floating-point entry of a tree is finite."""
    leaves = [
        jnp.all(jnp.isfinite(leaf))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return jnp.all(jnp.array(leaves)) if leaves else jnp.array(True)
