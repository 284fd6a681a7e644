"""Scan-based training of immutable trees: methods, saddle points, optimisers, the loop, checkpoints."""

from wfr_flows.training.checkpoint import CheckpointError, latest_step, restore, save
from wfr_flows.training.loop import Chunk, NonFiniteError, last_good, run
from wfr_flows.training.method import (
    LossFn,
    Method,
    TrainState,
    begin,
    copied,
    descend,
    gradient_method,
    is_finite,
    updated,
    value_and_gradient,
)
from wfr_flows.training.minimax import AscentFn, DescentFn, MinimaxInfo, MinimaxState, ShowFn, minimax
from wfr_flows.training.optimisers import cosine_adam, cosine_muon
from wfr_flows.training.resume import resumable

__all__ = [
    "AscentFn",
    "CheckpointError",
    "Chunk",
    "DescentFn",
    "LossFn",
    "Method",
    "MinimaxInfo",
    "MinimaxState",
    "NonFiniteError",
    "ShowFn",
    "TrainState",
    "begin",
    "copied",
    "cosine_adam",
    "cosine_muon",
    "descend",
    "gradient_method",
    "is_finite",
    "last_good",
    "latest_step",
    "minimax",
    "restore",
    "resumable",
    "run",
    "save",
    "updated",
    "value_and_gradient",
]
