"""Scalar potentials with their gradient, Laplacian and time derivative; convex ones with their Hessian."""

from wfr_flows.potentials.base import InitFn, Jet, JetFn, Potential, ValueFn, from_function
from wfr_flows.potentials.icnn import ConvexJet, ConvexPotential, icnn, pull_back, push_forward
from wfr_flows.potentials.mlp import SiluNetwork, mlp
from wfr_flows.potentials.moving_quadratic import moving_quadratic, total
from wfr_flows.potentials.quadratic import quadratic
from wfr_flows.potentials.resnet import resnet

__all__ = [
    "ConvexJet",
    "ConvexPotential",
    "InitFn",
    "Jet",
    "JetFn",
    "Potential",
    "SiluNetwork",
    "ValueFn",
    "from_function",
    "icnn",
    "mlp",
    "pull_back",
    "push_forward",
    "moving_quadratic",
    "quadratic",
    "resnet",
    "total",
]
