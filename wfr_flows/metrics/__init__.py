"""How good a result is: optimality of learned geodesics."""

from wfr_flows.metrics.optimality import momentum_variation, straightness

__all__ = ["momentum_variation", "straightness"]
