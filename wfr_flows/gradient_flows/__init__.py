"""Gradient flows of free energies by JKO steps."""

from wfr_flows.gradient_flows.convex_density import log_density_at, push_log_density
from wfr_flows.gradient_flows.duals import (
    Internal,
    Reference,
    Whitening,
    ball_reference,
    box_reference,
    entropy,
    gaussian_reference,
    power_entropy,
    whiten,
)
from wfr_flows.gradient_flows.interaction import interaction_energy, interaction_force
from wfr_flows.gradient_flows.line import Cells, line_jko
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
    "Cells",
    "Dual",
    "FlowInfo",
    "FlowState",
    "FreeEnergy",
    "Internal",
    "Link",
    "LogRatio",
    "Move",
    "Reference",
    "TransportMap",
    "Whitening",
    "affine",
    "ball_reference",
    "box_reference",
    "cosine_adam",
    "dual_of",
    "entropy",
    "evolve",
    "exponential",
    "fit_ratio",
    "gaussian_reference",
    "gradient_of",
    "interaction_energy",
    "interaction_force",
    "line_jko",
    "log_density_at",
    "log_ratio",
    "look",
    "power_entropy",
    "push",
    "push_log_density",
    "residual",
    "saddle",
    "softplus",
    "squared",
    "value_of",
    "variational_jko",
    "whiten",
]
