"""How good a result is: distances between samples and densities, optimality of learned geodesics."""

from wfr_flows.metrics.densities import kernel_density, symmetric_kl
from wfr_flows.metrics.optimality import momentum_variation, slope_error, straightness
from wfr_flows.metrics.samples import energy_distance, mmd, sliced_wasserstein

__all__ = [
    "energy_distance",
    "kernel_density",
    "mmd",
    "momentum_variation",
    "sliced_wasserstein",
    "slope_error",
    "straightness",
    "symmetric_kl",
]
