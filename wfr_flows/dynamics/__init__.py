"""From a potential and a geometry to moving weighted particles."""

from wfr_flows.dynamics.flow import FlowState, Trajectory, flow, time_grid, weighted_field
from wfr_flows.dynamics.geometry import Geometry
from wfr_flows.dynamics.integrate import RK4, VectorField, integrate

__all__ = [
    "RK4",
    "FlowState",
    "Geometry",
    "Trajectory",
    "VectorField",
    "flow",
    "integrate",
    "time_grid",
    "weighted_field",
]
