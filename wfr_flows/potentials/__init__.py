"""Scalar potentials with gradient, Laplacian and time derivative; convex ones with Hessian; critics."""

from wfr_flows.potentials.arrival import arrival
from wfr_flows.potentials.base import InitFn, Jet, JetFn, Potential, ValueFn, from_function
from wfr_flows.potentials.convex import ConvexJet, ConvexPotential, doubled, pull_back, push_forward
from wfr_flows.potentials.critics import Critic, orthogonal_critic, smooth_critic, spectral_critic
from wfr_flows.potentials.icnn import icnn
from wfr_flows.potentials.max_affine import max_affine
from wfr_flows.potentials.mlp import SiluNetwork, initialised, mlp
from wfr_flows.potentials.moving_quadratic import moving_quadratic, total
from wfr_flows.potentials.quadratic import quadratic
from wfr_flows.potentials.resnet import resnet

__all__ = [
    "ConvexJet",
    "ConvexPotential",
    "Critic",
    "InitFn",
    "Jet",
    "JetFn",
    "Potential",
    "SiluNetwork",
    "ValueFn",
    "arrival",
    "doubled",
    "from_function",
    "icnn",
    "initialised",
    "max_affine",
    "mlp",
    "moving_quadratic",
    "orthogonal_critic",
    "pull_back",
    "push_forward",
    "quadratic",
    "resnet",
    "smooth_critic",
    "spectral_critic",
    "total",
]
