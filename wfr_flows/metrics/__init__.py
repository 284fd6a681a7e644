"""How good a result is: distances between samples and densities, optimality of learned geodesics."""

from wfr_flows.metrics.densities import (
    gaussian_symmetric_kl,
    kernel_density,
    sampled_symmetric_kl,
    symmetric_kl,
)
from wfr_flows.metrics.optimality import momentum_variation, slope_error, straightness
from wfr_flows.metrics.samples import energy_distance, mmd, sliced_wasserstein
from wfr_flows.metrics.sinkhorn import SinkhornDivergence, sinkhorn_divergence

__all__ = [
    "SinkhornDivergence",
    "energy_distance",
    "gaussian_symmetric_kl",
    "kernel_density",
    "mmd",
    "momentum_variation",
    "sampled_symmetric_kl",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "slope_error",
    "straightness",
    "symmetric_kl",
]
