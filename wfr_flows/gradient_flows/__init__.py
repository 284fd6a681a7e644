"""Gradient flows of free energies by JKO steps."""

from wfr_flows.gradient_flows.duals import (
    Internal,
    Reference,
    ball_reference,
    box_reference,
    entropy,
    gaussian_reference,
    power_entropy,
)
from wfr_flows.gradient_flows.functionals import (
    Functional,
    free_energy,
    negative_entropy,
    porous_energy,
    potential_energy,
    total,
)
from wfr_flows.gradient_flows.gaussian import gaussian_jko_step
from wfr_flows.gradient_flows.icnn_jko import (
    ConvexMap,
    JKOInfo,
    JKOState,
    Sample,
    carry,
    flow_log_density,
    icnn_jko,
    trajectory,
)
from wfr_flows.gradient_flows.interaction import interaction_energy, interaction_force
from wfr_flows.gradient_flows.maps import TransportMap, affine, gradient_of, residual
from wfr_flows.gradient_flows.ratios import Link, LogRatio, exponential, log_ratio, softplus, squared
from wfr_flows.gradient_flows.saddle import Dual, FreeEnergy, dual_of, fit_ratio, look, saddle, value_of
from wfr_flows.gradient_flows.variational_jko import (
    FlowInfo,
    FlowState,
    Move,
    cosine_adam,
    evolve,
    push,
    variational_jko,
)

__all__ = [
    "ConvexMap",
    "Dual",
    "FlowInfo",
    "FlowState",
    "FreeEnergy",
    "Functional",
    "Internal",
    "JKOInfo",
    "JKOState",
    "Link",
    "LogRatio",
    "Move",
    "Reference",
    "Sample",
    "TransportMap",
    "affine",
    "ball_reference",
    "box_reference",
    "carry",
    "cosine_adam",
    "dual_of",
    "entropy",
    "evolve",
    "exponential",
    "fit_ratio",
    "flow_log_density",
    "free_energy",
    "gaussian_jko_step",
    "gaussian_reference",
    "gradient_of",
    "icnn_jko",
    "interaction_energy",
    "interaction_force",
    "log_ratio",
    "look",
    "negative_entropy",
    "porous_energy",
    "potential_energy",
    "power_entropy",
    "push",
    "residual",
    "saddle",
    "softplus",
    "squared",
    "total",
    "trajectory",
    "value_of",
    "variational_jko",
]
