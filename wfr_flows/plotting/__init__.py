"""Figures; matplotlib is imported when one is drawn."""

from wfr_flows.plotting.filtering import filtering
from wfr_flows.plotting.geodesic import geodesic
from wfr_flows.plotting.posterior import posterior
from wfr_flows.plotting.snapshots import snapshots
from wfr_flows.plotting.transport import transport

__all__ = ["filtering", "geodesic", "posterior", "snapshots", "transport"]
