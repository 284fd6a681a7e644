"""Stateless mathematics: cone functions, f-divergences, costs, determinants, quadrature, weighted draws."""

from wfr_flows.numerics.blocks import in_blocks
from wfr_flows.numerics.cone import (
    REACH,
    arcsinc_squared,
    inverse_alpha,
    known_infinite,
    log_cos_ratio,
    saturate,
    sinc_squared,
)
from wfr_flows.numerics.costs import squared_distance, transport_cost
from wfr_flows.numerics.f_divergence import (
    FDivergence,
    alpha_divergence,
    chi_squared,
    donsker_varadhan,
    generalized_entropy,
    jensen_shannon,
    kl,
    lower_bound,
    reverse_kl,
)
from wfr_flows.numerics.log_det import log_det, signs, stochastic_log_det
from wfr_flows.numerics.quadrature import simpson_weights
from wfr_flows.numerics.sampling import inverse_distribution, lattice, running_total
from wfr_flows.numerics.trees import (
    built_each,
    combine,
    concrete,
    entry,
    is_array,
    is_floating,
    is_key,
    partition,
)
from wfr_flows.numerics.weights import log_normalised, log_of_weight, weight_of_log

__all__ = [
    "FDivergence",
    "REACH",
    "alpha_divergence",
    "arcsinc_squared",
    "built_each",
    "chi_squared",
    "combine",
    "concrete",
    "donsker_varadhan",
    "entry",
    "generalized_entropy",
    "in_blocks",
    "inverse_alpha",
    "inverse_distribution",
    "is_array",
    "is_floating",
    "is_key",
    "jensen_shannon",
    "kl",
    "known_infinite",
    "lattice",
    "log_cos_ratio",
    "log_det",
    "log_normalised",
    "log_of_weight",
    "lower_bound",
    "partition",
    "reverse_kl",
    "running_total",
    "saturate",
    "signs",
    "simpson_weights",
    "sinc_squared",
    "squared_distance",
    "stochastic_log_det",
    "transport_cost",
    "weight_of_log",
]
