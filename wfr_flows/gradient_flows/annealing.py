"""Gradient flows at falling temperature: laws whose modes lie far apart."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.numerics import concrete
from wfr_flows.training import Method
from wfr_flows.typing import ArrayLike, Float, Int, Key


class Annealed(NamedTuple):
    """A flow's state, and the steps that it has done."""

    state: Any
    step: Int[ArrayLike, ""]


def annealed(
    towards: Callable[[LogDensity], Method],
    log_density: LogDensity,
    temperature: Float[ArrayLike, " k"],
) -> Method:
    """Steps towards ``π^(1/T)``, the temperature ``T`` falling from one to the next.

    The Langevin diffusion and its JKO steps leave the mass between distant modes where the first steps put
    it: what crosses the barriers does so in exponential time. While ``T`` is high they overlap, and large
    steps bring each the share it has in ``π^(1/T)``; as they draw apart it keeps that of the temperature at
    which crossing ends (simulated annealing, of laws and not of points). Modes of equal height and width get
    equal shares, others shares between equal ones and their own, which importance weights mend:
    `inference.weigh`.

    Args:
      towards: the flow that has a given law as its limit, for instance
        ``lambda target: icnn_jko(potential, free_energy(target), ...)``.
      log_density: ``log π``, up to a constant.
      temperature: ``[k]``, all > 0, of the first ``k`` steps; the last one stays. Let it end at 1:
        ``jnp.geomspace(16, 1, 17)`` for modes four times as far apart as they are wide.

    Returns:
      A `training.Method` with that of ``towards`` inside: the same ``init`` and batches, an `Annealed` state.

    Raises:
      ValueError: temperatures that are not a vector of at least one, or one that is not above 0.
    """
    temperature = jnp.asarray(temperature, float)
    if temperature.ndim != 1 or temperature.size == 0:
        raise ValueError(f"temperature has shape {temperature.shape}; give a vector, one for every step.")
    if concrete(temperature) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"temperature is {temperature}; give numbers above 0.")

    def at(step: Int[ArrayLike, ""]) -> Method:
        now = temperature[jnp.minimum(step, temperature.size - 1)]
        return towards(lambda x: log_density(x) / now.astype(x.dtype))

    def init(start: Any) -> Annealed:
        return Annealed(at(0).init(start), jnp.zeros((), jnp.int32))

    def step(key: Key, state: Annealed, batch: Any) -> tuple[Annealed, Any]:
        after, info = at(state.step).step(key, state.state, batch)
        return Annealed(after, state.step + 1), info

    return Method(init, step)
