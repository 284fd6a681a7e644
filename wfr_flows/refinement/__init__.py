"""Refining any flow to optimal transport (Q-flow), and density ratios along it.

[QF] is Xu, Cheng and Xie, Computing high-dimensional optimal transport by flow neural networks (2025).
"""

from wfr_flows.refinement.bases import (
    Base,
    base_distribution,
    copula_base,
    fit_base,
    flow_base,
    gaussian_base,
)
from wfr_flows.refinement.bridges import Bridge, flow_bridge, linear_bridge
from wfr_flows.refinement.density_ratio import (
    LogRatio,
    bits_per_dimension,
    density_ratio,
    energy_model,
    log_ratio,
    stepwise,
)
from wfr_flows.refinement.logistic import logistic_loss
from wfr_flows.refinement.normaliser import Normaliser, annealed_normaliser
from wfr_flows.refinement.pairs import flow_matching, flow_pairs, independent_pairs
from wfr_flows.refinement.q_flow import QParams, QState, QTerms, init_params, q_flow, transport_cost
from wfr_flows.refinement.refine import Draw, between, fit_ratio, refine
from wfr_flows.refinement.round_trip import round_trip

__all__ = [
    "Base",
    "Bridge",
    "Draw",
    "LogRatio",
    "Normaliser",
    "QParams",
    "QState",
    "QTerms",
    "annealed_normaliser",
    "base_distribution",
    "between",
    "bits_per_dimension",
    "copula_base",
    "density_ratio",
    "energy_model",
    "fit_base",
    "fit_ratio",
    "flow_base",
    "flow_bridge",
    "flow_matching",
    "flow_pairs",
    "gaussian_base",
    "independent_pairs",
    "init_params",
    "linear_bridge",
    "log_ratio",
    "logistic_loss",
    "q_flow",
    "refine",
    "round_trip",
    "stepwise",
    "transport_cost",
]
