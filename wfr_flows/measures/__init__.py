"""What flows act on: weighted particles, exact distributions, named examples, file readers."""

from wfr_flows.measures.barenblatt import barenblatt, barenblatt_radius
from wfr_flows.measures.builtin import BUILTIN, gaussian_mixture_1d
from wfr_flows.measures.components import Components, principal_components
from wfr_flows.measures.distributions import (
    Distribution,
    empirical,
    gaussian,
    mixture,
    spread_ends,
    standard_normal,
)
from wfr_flows.measures.ornstein_uhlenbeck import ornstein_uhlenbeck
from wfr_flows.measures.particles import (
    Particles,
    centre_and_scale,
    equally_weighted,
    moments,
    padded,
    particles,
    redrawing,
    resample,
    thinned,
    with_moments,
)
from wfr_flows.measures.readers import read_particles, read_with_column, read_with_times, write_annotated
from wfr_flows.measures.snapshots import Snapshots, by_time
from wfr_flows.measures.tables import ReadingNote
from wfr_flows.measures.times import Times, times_of
from wfr_flows.measures.toys import (
    checkerboard,
    circles,
    eight_gaussians,
    moons,
    pinwheel,
    swissroll,
    two_spirals,
)
from wfr_flows.measures.uniform import uniform_ball, uniform_box
from wfr_flows.measures.whitening import Whitening, whitening, whitening_by

__all__ = [
    "BUILTIN",
    "Components",
    "Distribution",
    "Particles",
    "ReadingNote",
    "Snapshots",
    "Times",
    "Whitening",
    "barenblatt",
    "barenblatt_radius",
    "by_time",
    "centre_and_scale",
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
    "ornstein_uhlenbeck",
    "padded",
    "particles",
    "pinwheel",
    "principal_components",
    "read_particles",
    "read_with_column",
    "read_with_times",
    "redrawing",
    "resample",
    "spread_ends",
    "standard_normal",
    "swissroll",
    "thinned",
    "times_of",
    "two_spirals",
    "uniform_ball",
    "uniform_box",
    "whitening",
    "whitening_by",
    "with_moments",
    "write_annotated",
]
