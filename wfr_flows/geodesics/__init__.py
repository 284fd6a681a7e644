"""Learned geodesics: simulation-free matching, the UOT-gen objective, weighted generation, densities."""

from wfr_flows.geodesics.density import carried_log_density, gauge_flow, log_density, log_normaliser
from wfr_flows.geodesics.generate import generate
from wfr_flows.geodesics.matching import matching
from wfr_flows.geodesics.objective import Objective, objective, running_costs

__all__ = [
    "Objective",
    "carried_log_density",
    "gauge_flow",
    "generate",
    "log_density",
    "log_normaliser",
    "matching",
    "objective",
    "running_costs",
]
