"""Wasserstein-Fisher-Rao geometry in JAX.

Exact distances between weighted point clouds with a certificate, learned geodesics, weighted generation. Data
enters at the top of this list and leaves at the bottom; a package imports only from those above it.

* `numerics`: stateless mathematics.
* `measures`: what flows act on.
* `static`: exact WFR without training.
* `metrics`: how good a result is.
* `potentials`: scalar fields with their derivatives.
* `dynamics`: from a potential to moving weighted particles.
* `training`: the loop and its checkpoints.
* `geodesics`: learned geodesics.
* `gradient_flows`: JKO steps.
* `proximal`: W₁⊕W₂ proximal generative flows.
* `refinement`: any flow refined to optimal transport, and density ratios along it.
* `plotting`, `cli`: figures and the command ``wfr-flows``, imported on demand.
"""

from importlib.metadata import version

from wfr_flows import (
    dynamics,
    geodesics,
    gradient_flows,
    measures,
    metrics,
    numerics,
    potentials,
    proximal,
    refinement,
    static,
    training,
)
from wfr_flows.dynamics import Geometry, Trajectory, flow, integrate, time_grid
from wfr_flows.geodesics import Objective, generate, log_density, matching, objective
from wfr_flows.measures import (
    Distribution,
    Particles,
    gaussian,
    mixture,
    particles,
    read_particles,
    standard_normal,
)
from wfr_flows.potentials import Jet, Potential
from wfr_flows.static import StaticResult, semi_coupling, spherical_wfr, wfr

__version__ = version("wfr-flows")

__all__ = [
    "Distribution",
    "Geometry",
    "Jet",
    "Objective",
    "Particles",
    "Potential",
    "StaticResult",
    "Trajectory",
    "dynamics",
    "flow",
    "gaussian",
    "generate",
    "geodesics",
    "gradient_flows",
    "integrate",
    "log_density",
    "matching",
    "measures",
    "metrics",
    "mixture",
    "numerics",
    "objective",
    "particles",
    "potentials",
    "proximal",
    "read_particles",
    "refinement",
    "semi_coupling",
    "spherical_wfr",
    "standard_normal",
    "static",
    "time_grid",
    "training",
    "wfr",
]
