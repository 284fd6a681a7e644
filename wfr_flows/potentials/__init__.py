"""Scalar potentials with their gradient, Laplacian and time derivative."""

from wfr_flows.potentials.base import InitFn, Jet, JetFn, Potential, ValueFn, from_function
from wfr_flows.potentials.mlp import SiluNetwork, mlp
from wfr_flows.potentials.moving_quadratic import moving_quadratic, total
from wfr_flows.potentials.quadratic import quadratic
from wfr_flows.potentials.resnet import resnet

__all__ = [
    "InitFn",
    "Jet",
    "JetFn",
    "Potential",
    "SiluNetwork",
    "ValueFn",
    "from_function",
    "mlp",
    "moving_quadratic",
    "quadratic",
    "resnet",
    "total",
]
