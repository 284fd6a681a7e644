"""What flows act on: weighted particles, exact distributions, named examples, file readers."""

from wfr_flows.measures.builtin import BUILTIN, gaussian_mixture_1d
from wfr_flows.measures.distributions import Distribution, empirical, gaussian, mixture, standard_normal
from wfr_flows.measures.particles import Particles, equally_weighted, moments, padded, particles, resample
from wfr_flows.measures.readers import read_particles, read_with_column, write_annotated
from wfr_flows.measures.snapshots import Snapshots, by_time
from wfr_flows.measures.toys import (
    checkerboard,
    circles,
    eight_gaussians,
    moons,
    pinwheel,
    swissroll,
    two_spirals,
)

__all__ = [
    "BUILTIN",
    "Distribution",
    "Particles",
    "Snapshots",
    "by_time",
    "checkerboard",
    "circles",
    "eight_gaussians",
    "empirical",
    "equally_weighted",
    "gaussian",
    "gaussian_mixture_1d",
    "mixture",
    "moments",
    "moons",
    "padded",
    "particles",
    "pinwheel",
    "read_particles",
    "read_with_column",
    "resample",
    "standard_normal",
    "swissroll",
    "two_spirals",
    "write_annotated",
]
