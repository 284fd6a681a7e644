"""W₁⊕W₂ proximal generative flows."""

from wfr_flows.proximal.bounds import Bound, f_bound, wasserstein_bound
from wfr_flows.proximal.carry import EULER, Carried, carry_with_costs
from wfr_flows.proximal.diagnostics import Diagnostics, diagnose
from wfr_flows.proximal.fit import fit
from wfr_flows.proximal.method import Terms, between, proximal, random_grid, slopes
from wfr_flows.proximal.start import Lines, optimal_lines, straight_lines
from wfr_flows.proximal.straighten import straighten

__all__ = [
    "EULER",
    "Bound",
    "Carried",
    "Diagnostics",
    "Lines",
    "Terms",
    "between",
    "carry_with_costs",
    "diagnose",
    "f_bound",
    "fit",
    "optimal_lines",
    "proximal",
    "random_grid",
    "slopes",
    "straight_lines",
    "straighten",
    "wasserstein_bound",
]
