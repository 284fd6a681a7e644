"""Exact WFR without training: closed forms, certified solver, semi-couplings, geodesics.

[LMS] is Liero, Mielke and Savaré, Optimal entropy-transport problems and a new Hellinger-Kantorovich distance
(2018); [LM] is Laschos and Mielke, Geometric properties of cones with applications on the
Hellinger-Kantorovich space (2019).
"""

from wfr_flows.static.bounds import DualPotentials, dual_bound, plan_cost
from wfr_flows.static.diracs import (
    Diracs,
    DiracState,
    cone_angle,
    coupling_cost,
    dirac_to_measure,
    growth_cost,
    pair_cost,
    spherical_from_plain,
    spherical_geodesic,
    spherical_time,
    spherical_travel,
    travel,
    two_diracs,
    wfr_geodesic,
)
from wfr_flows.static.exact import gaussian_hellinger_gaussians
from wfr_flows.static.grid import GridGeodesic, benamou_brenier
from wfr_flows.static.plans import SparsePlan
from wfr_flows.static.potentials import end_potentials, potential, spherical_potential
from wfr_flows.static.result import StaticResult
from wfr_flows.static.solver import (
    gaussian_hellinger,
    semi_coupling,
    spherical_wfr,
    unmatched,
    wasserstein,
    wasserstein_1,
    wfr,
)

__all__ = [
    "DiracState",
    "Diracs",
    "DualPotentials",
    "GridGeodesic",
    "SparsePlan",
    "StaticResult",
    "benamou_brenier",
    "cone_angle",
    "coupling_cost",
    "dirac_to_measure",
    "dual_bound",
    "end_potentials",
    "gaussian_hellinger",
    "gaussian_hellinger_gaussians",
    "growth_cost",
    "pair_cost",
    "plan_cost",
    "potential",
    "semi_coupling",
    "spherical_from_plain",
    "spherical_geodesic",
    "spherical_potential",
    "spherical_time",
    "spherical_travel",
    "spherical_wfr",
    "travel",
    "two_diracs",
    "unmatched",
    "wasserstein",
    "wasserstein_1",
    "wfr",
    "wfr_geodesic",
]
