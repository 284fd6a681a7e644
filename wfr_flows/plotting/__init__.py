"""Figures; matplotlib is imported when one is drawn."""

from wfr_flows.plotting.geodesic import geodesic

__all__ = ["geodesic"]
