"""Learned geodesics: matching, the UOT-gen objective, weighted generation, densities, online updates."""

from wfr_flows.geodesics.density import carried_log_density, gauge_flow, log_density, log_normaliser
from wfr_flows.geodesics.fit import fit, fit_chain
from wfr_flows.geodesics.generate import generate
from wfr_flows.geodesics.generator import (
    MANY_DIMENSIONS,
    Generator,
    Learned,
    generator,
)
from wfr_flows.geodesics.matching import Loss, fit_matching, matching, matching_method, zero_loss
from wfr_flows.geodesics.objective import Objective, RunningCosts, objective, path_jets, running_costs
from wfr_flows.geodesics.online import Online, begin, update
from wfr_flows.geodesics.snapshots import Chain, chain, chain_matching, push, push_misfit, window_actions
from wfr_flows.geodesics.uot_gen import uot_gen

__all__ = [
    "MANY_DIMENSIONS",
    "Chain",
    "Generator",
    "Learned",
    "Loss",
    "Objective",
    "Online",
    "RunningCosts",
    "begin",
    "carried_log_density",
    "chain",
    "chain_matching",
    "fit",
    "fit_chain",
    "fit_matching",
    "gauge_flow",
    "generate",
    "generator",
    "log_density",
    "log_normaliser",
    "matching",
    "matching_method",
    "objective",
    "path_jets",
    "push",
    "push_misfit",
    "running_costs",
    "uot_gen",
    "update",
    "window_actions",
    "zero_loss",
]
