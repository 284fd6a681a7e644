"""A flow followed closely enough to be inverted."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.dynamics import Field, Geometry, Trajectory, carry, time_grid
from wfr_flows.measures import Particles
from wfr_flows.typing import Array, Float, Params, PyTree


def round_trip(
    field: Field,
    geometry: Geometry,
    params: Params,
    measure: Particles,
    *,
    num_steps: int = 32,
    reverse: bool = False,
    tolerance: float = 1e-10,
) -> tuple[Trajectory, Float[Array, " n"]]:
    """Particles on their way, and how far each is from where it started once it has come back.

    Where a flow tears its sample apart it magnifies rounding as it does distances: float32 and a fixed grid
    lose some points there. So it is solved in float64, whatever the precision around, by an adaptive solver.
    On the host, not under `jax.jit`.

    Args:
      field, geometry, params: the flow.
      measure: weighted particles at time 0; at time 1 if ``reverse``.
      num_steps: intervals of the times at which the way is reported.
      reverse: from time 1 to 0, and back.
      tolerance: of the solver, relative and absolute.

    Returns:
      A `Trajectory` and the distances ``[n]``, of the precision of the measure.
    """
    dtype = measure.position.dtype
    with jax.enable_x64(True):

        def double(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)

        weights, start = double(params), double(measure)
        plain = geometry._replace(alpha=np.asarray(geometry.alpha).item())
        take = partial(_carried, field, plain, tolerance, weights)
        there = take(start, double(time_grid(num_steps, reverse=reverse)))
        back = take(there.at(-1), double(time_grid(num_steps, reverse=not reverse)))
        error = np.linalg.norm(np.asarray(back.position[-1] - start.position), axis=1)
        found = jax.tree.map(np.asarray, there)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (found, error))


@partial(jax.jit, static_argnums=(0, 1, 2))  # Once for all calls of a flow.
def _carried(
    field: Field, geometry: Geometry, tolerance: float, params: Params, measure: Particles, grid: Array
):
    return carry(field, geometry, params, measure, grid, tolerance=tolerance)
