"""Stateless mathematics: cone functions with their limits, pairwise costs, quadrature on a grid."""

from wfr_flows.numerics.cone import (
    REACH,
    arcsinc_squared,
    inverse_alpha,
    log_cos_ratio,
    saturate,
    sinc_squared,
)
from wfr_flows.numerics.costs import squared_distance, transport_cost
from wfr_flows.numerics.quadrature import simpson_weights

__all__ = [
    "REACH",
    "arcsinc_squared",
    "inverse_alpha",
    "log_cos_ratio",
    "saturate",
    "simpson_weights",
    "sinc_squared",
    "squared_distance",
    "transport_cost",
]
