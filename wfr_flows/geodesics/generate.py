"""Weighted generation: the reverse flow from samples of the target."""

import diffrax

from wfr_flows.dynamics import Geometry, flow, time_grid
from wfr_flows.measures import Particles
from wfr_flows.potentials import Potential
from wfr_flows.typing import Params


def generate(
    potential: Potential,
    geometry: Geometry,
    params: Params,
    target: Particles,
    *,
    num_steps: int = 16,
    solver: diffrax.AbstractSolver | None = None,
) -> Particles:
    """Weighted samples of the source: target samples carried backward (UOT-gen, [WFR] algorithm 2).

    ``dx̂/ds = ∇Φ(x̂, 1-s)`` and ``d log ŵ/ds = (1/alpha)(Φ - Φ̂)``: the forward field on a reversed time grid.

    Args:
      potential, geometry, params: the learned flow.
      target: weighted samples of ρ₁, fresh ones for fresh output.
      num_steps, solver: as in `dynamics.integrate`.

    Returns:
      `Particles` of mass 1; resample them for equal weights.
    """
    grid = time_grid(num_steps, reverse=True)
    reverse = flow(potential, geometry, params, target.normalise(), grid, solver=solver, log_det=False)
    return reverse.at(-1).normalise()
