"""What a command that learns a geodesic was asked; that of ``wfr-flows geodesic`` its directory keeps."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax

from wfr_flows.cli.directory import read_json
from wfr_flows.cli.options import pick


@dataclasses.dataclass(frozen=True)
class Training:
    """What decides how a geodesic is learned, beside the samples: see `options.add_training`."""

    weights: str | None
    alpha: float
    seed: int
    width: int
    matching_steps: int
    refinement_steps: int
    batch: int
    num_steps: int
    action_weight: float
    velocity_weight: float
    matching_weight: float
    float64: bool

    @classmethod
    def of(cls, options: argparse.Namespace, usual: Mapping[str, tuple[int, int]], **others: Any) -> Self:
        """From the options of the fields' names, their defaults in a full and in a quick run, and others."""
        others |= {name: pick(options, name, *both) for name, both in usual.items()}
        others["float64"] = jax.config.values["jax_enable_x64"]
        names = {field.name for field in dataclasses.fields(cls)} - set(others)
        return cls(**{name: getattr(options, name) for name in names}, **others)


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Everything that decides the result of a run of ``wfr-flows geodesic``."""

    source: str
    target: str | None
    num_samples: int


def made_by_us(saved: dict | None) -> bool:
    """Whether these are the settings of a run."""
    names = {field.name for field in dataclasses.fields(Settings)}
    return saved is not None and names <= set(saved) and isinstance(saved.get("run"), str)


def finished(out: Path, saved: dict) -> bool:
    """Whether the run of these saved settings came to its summary."""
    summary = read_json(out / "summary.json")
    return summary is not None and bool(saved.get("run")) and summary.get("run") == saved["run"]
