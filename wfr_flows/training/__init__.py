"""Scan-based training of immutable trees: methods, the loop, checkpoints."""

from wfr_flows.training.checkpoint import latest_step, restore, save
from wfr_flows.training.loop import Chunk, NonFiniteError, run
from wfr_flows.training.method import LossFn, Method, TrainState, begin, descend, gradient_method, is_finite

__all__ = [
    "Chunk",
    "LossFn",
    "Method",
    "NonFiniteError",
    "TrainState",
    "begin",
    "descend",
    "gradient_method",
    "is_finite",
    "latest_step",
    "restore",
    "run",
    "save",
]
