"""Straight paths to the same places, so that one step of the flow is as good as many."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp

from wfr_flows.dynamics import Field, Geometry, carry, time_grid
from wfr_flows.geodesics import fit_matching
from wfr_flows.measures import Distribution
from wfr_flows.proximal.carry import EULER
from wfr_flows.proximal.start import Lines, straight_lines
from wfr_flows.training import Chunk
from wfr_flows.typing import Key, Params

_RATE = 5e-3
_POWER = 2.0


def straighten(
    key: Key,
    field: Field,
    params: Params,
    source: Distribution,
    steps: int,
    *,
    num_steps: int = 5,
    solver: diffrax.AbstractSolver = EULER,
    size: int = 30000,
    on_chunk: Callable[[Chunk], None] = lambda chunk: None,
) -> Params:
    """Match the velocity to the straight lines from samples to where the flow carries them now.

    The reflow of Liu, Gong and Liu (2023). Where paths are nearly straight, as after `proximal` training,
    lines do not cross, and nothing but the dependence on the number of steps is lost.

    Args:
      key: for samples and batches.
      field, params: of a flow without growth.
      source: where it starts.
      steps: of `straight_lines`.
      num_steps, solver: by which the flow is carried.
      size: number of lines.
      on_chunk: as in `training.run`.
    """
    sample_key, match_key = jax.random.split(key)
    start = source.sample(sample_key, size)

    @jax.jit
    def arrive(params, start):
        return carry(field, Geometry(jnp.inf), params, start, time_grid(num_steps), solver=solver).position[
            -1
        ]

    match = straight_lines(field, Lines(start.position, arrive(params, start)), power=_POWER)
    return fit_matching(match_key, params, match, steps, on_chunk, learning_rate=_RATE)
