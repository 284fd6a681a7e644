"""The command ``wfr-flows``: every main job on a user's file."""

from wfr_flows.cli.main import main

__all__ = ["main"]
