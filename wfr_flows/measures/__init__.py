"""What flows act on: weighted particles, exact distributions, named examples, file readers."""

from wfr_flows.measures.builtin import BUILTIN, eight_gaussians, gaussian_mixture_1d, moons
from wfr_flows.measures.distributions import Distribution, empirical, gaussian, mixture, standard_normal
from wfr_flows.measures.particles import Particles, particles, resample
from wfr_flows.measures.readers import read_particles

__all__ = [
    "BUILTIN",
    "Distribution",
    "Particles",
    "eight_gaussians",
    "empirical",
    "gaussian",
    "gaussian_mixture_1d",
    "mixture",
    "moons",
    "particles",
    "read_particles",
    "resample",
    "standard_normal",
]
