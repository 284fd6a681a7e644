"""Learned geodesics: simulation-free matching, the UOT-gen objective, weighted generation, densities."""

from wfr_flows.geodesics.matching import matching
from wfr_flows.geodesics.objective import Objective, objective, running_costs

__all__ = ["Objective", "matching", "objective", "running_costs"]
