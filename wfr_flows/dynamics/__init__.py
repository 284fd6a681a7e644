"""From a potential and a geometry to moving weighted particles."""

from wfr_flows.dynamics.field import (
    Field,
    Rates,
    RatesFn,
    batched,
    free_field,
    potential_field,
    windowed,
)
from wfr_flows.dynamics.flow import (
    FlowState,
    Trajectory,
    carry,
    field_motion,
    flow,
    time_grid,
    weighted_field,
)
from wfr_flows.dynamics.geometry import Geometry
from wfr_flows.dynamics.integrate import RK4, VectorField, integrate

__all__ = [
    "RK4",
    "Field",
    "FlowState",
    "Geometry",
    "Rates",
    "RatesFn",
    "Trajectory",
    "VectorField",
    "batched",
    "carry",
    "field_motion",
    "flow",
    "free_field",
    "integrate",
    "potential_field",
    "time_grid",
    "weighted_field",
    "windowed",
]
