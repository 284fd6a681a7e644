"""What a run of ``wfr-flows geodesic`` was asked, which its directory keeps for those who use its model."""

import dataclasses
from pathlib import Path

from wfr_flows.cli.directory import read_json


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a run."""

    source: str
    target: str | None
    weights: str | None
    alpha: float
    seed: int
    num_samples: int
    width: int
    matching_steps: int
    refinement_steps: int
    batch: int
    num_steps: int
    action_weight: float
    velocity_weight: float
    matching_weight: float
    float64: bool


def made_by_us(saved: dict | None) -> bool:
    """Whether these are the settings of a run."""
    names = {field.name for field in dataclasses.fields(Settings)}
    return saved is not None and names <= set(saved) and isinstance(saved.get("run"), str)


def finished(out: Path, saved: dict) -> bool:
    """Whether the run of these saved settings came to its summary."""
    summary = read_json(out / "summary.json")
    return summary is not None and bool(saved.get("run")) and summary.get("run") == saved["run"]
