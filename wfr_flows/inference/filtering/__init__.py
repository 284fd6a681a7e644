"""Continuous-discrete nonlinear filtering: one model, one loop, one result, several filters."""

from wfr_flows.inference.filtering.filtered import Filtered, assimilate
from wfr_flows.inference.filtering.flow_filter import flow_log_density, metropolis_filter, wfr_filter
from wfr_flows.inference.filtering.generative_filter import generative_filter
from wfr_flows.inference.filtering.grid_filter import grid_filter
from wfr_flows.inference.filtering.kalman_filter import kalman_filter
from wfr_flows.inference.filtering.model import (
    LinearGaussian,
    Observations,
    Sensor,
    StateSpace,
    gaussian_sensor,
    observations,
    simulate,
    state_space,
)
from wfr_flows.inference.filtering.particle_filter import particle_filter
from wfr_flows.inference.filtering.prediction import Prediction, flow_prediction
from wfr_flows.inference.filtering.rejuvenation import metropolis_hastings

__all__ = [
    "Filtered",
    "LinearGaussian",
    "Observations",
    "Prediction",
    "Sensor",
    "StateSpace",
    "assimilate",
    "flow_log_density",
    "flow_prediction",
    "gaussian_sensor",
    "generative_filter",
    "grid_filter",
    "kalman_filter",
    "metropolis_filter",
    "metropolis_hastings",
    "observations",
    "particle_filter",
    "simulate",
    "state_space",
    "wfr_filter",
]
