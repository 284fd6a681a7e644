"""Exact WFR without training: closed forms, certified solver, semi-couplings, geodesics."""

from wfr_flows.static.diracs import (
    Diracs,
    DiracState,
    cone_angle,
    dirac_to_measure,
    growth_cost,
    pair_cost,
    spherical_from_plain,
    spherical_geodesic,
    spherical_time,
    travel,
    two_diracs,
    wfr_geodesic,
)
from wfr_flows.static.solver import (
    DualPotentials,
    StaticResult,
    semi_coupling,
    spherical_wfr,
    transport_plan,
    wfr,
)

__all__ = [
    "DiracState",
    "Diracs",
    "DualPotentials",
    "StaticResult",
    "cone_angle",
    "dirac_to_measure",
    "growth_cost",
    "pair_cost",
    "semi_coupling",
    "spherical_from_plain",
    "spherical_geodesic",
    "spherical_time",
    "spherical_wfr",
    "transport_plan",
    "travel",
    "two_diracs",
    "wfr",
    "wfr_geodesic",
]
