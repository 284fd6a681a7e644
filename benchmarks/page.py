"""The results page: what was published or asked for beside what the records in ``results/`` hold.

`experiments.toml` lists experiments: where in the records a number stands, what was published, what is asked.
No number of ours is written there; each is read from a record, with its seconds and its machine.
"""

import json
import statistics
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
START, END = "<!-- results: written by python -m benchmarks --page -->", "<!-- end of results -->"
HEADER = (
    "| experiment | number | published | asked | ours | truth or floor | met | seconds | record |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def _alone(values: Sequence[float]) -> float:
    (value,) = values
    return value


REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "only": _alone,
    "mean": statistics.fmean,
    "median": statistics.median,
    "largest": max,
    "smallest": min,
    "largest size": lambda values: max(abs(value) for value in values),
}


class Record(NamedTuple):
    """One file of results: what its name says, the machine, the lines."""

    path: Path
    machine: dict[str, Any]
    lines: list[dict[str, Any]]


def records(folder: Path) -> dict[str, Record]:
    """By ``kind-name``, of the files ``kind-name-CORES-DEVICE.jsonl``.

    Raises:
      ValueError: a record of a smoke run, or two of one name.
    """
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        first, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        name = path.stem.rsplit("-", 2)[0]
        if first["smoke"]:
            raise ValueError(f"{path.name} is of a smoke run, whose numbers mean nothing.")
        if name in found:
            raise ValueError(f"{path.name} and {found[name].path.name} are of one name; keep one.")
        found[name] = Record(path, first["machine"], lines)
    return found


def table(experiments: dict[str, Any], found: dict[str, Record]) -> str:
    """The page in Markdown: one table for every source, then what is missing and why."""
    parts = []
    for source in experiments["source"]:
        rows = [row for row in experiments["row"] if row["source"] == source["key"]]
        parts.append(f"### {source['title']}")
        if "about" in source:
            parts.append(source["about"])
        parts.append("\n".join([HEADER, *(_line(row, found) for row in rows)]))
        missing = [item for item in experiments.get("missing", []) if item["source"] == source["key"]]
        if missing:
            said = "\n".join(f"* {item['experiment']}: {item['reason']}" for item in missing)
            parts.append(f"Not reproduced:\n\n{said}")
    return "\n\n".join(parts)


def rewritten(page: str, inner: str) -> str:
    """The page with what stands between its two marks replaced."""
    before, rest = page.split(START)
    return f"{before}{START}\n\n{inner}\n\n{END}{rest.split(END)[1]}"


def current() -> str:
    """What the page ought to be now."""
    experiments = tomllib.loads((HERE / "experiments.toml").read_text())
    return rewritten((HERE / "README.md").read_text(), table(experiments, records(HERE / "results")))


def write() -> None:
    (HERE / "README.md").write_text(current())


def _line(row: dict[str, Any], found: dict[str, Record]) -> str:
    record = found[row["record"]]
    lines = _matching(record, row.get("where", {}))
    reduce = REDUCTIONS[row.get("reduce", "only")]

    def number(name: str) -> float | None:
        values = [_at(line, row[name]) for line in lines] if name in row else []
        return reduce(values) if values else None

    if "below" in row:
        others = [line for where in row["below"] for line in _matching(record, where)]
        row = row | {"below": min(_at(line, row["value"]) for line in others)}
    ours, asked = number("value"), _asked(row)
    truth = number("truth") if "truth" in row else row.get("exact")
    if ours is None:
        raise ValueError(f"no line of {record.path.name} is {row.get('where')}: {row['experiment']}")
    seconds = number("seconds")
    cells = [
        row["experiment"],
        row["number"],
        _shown(row.get("published")),
        asked,
        f"**{_shown(ours)}**",
        _shown(truth),
        "" if not asked else "yes" if _met(row, ours, truth) else "**no**",
        "" if seconds is None else f"{seconds:.3g}",
        f"[{_machine(record)}](results/{record.path.name})",
    ]
    return f"| {' | '.join(cells)} |"


def _matching(record: Record, where: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for line in record.lines if all(line.get(k) == v for k, v in where.items())]


def _at(line: dict[str, Any], path: str) -> Any:
    """``a.0`` is the first entry of ``a``."""
    value: Any = line
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _asked(row: dict[str, Any]) -> str:
    signs = {"at_most": "≤", "below": "<", "at_least": "≥", "size_at_most": "±"}
    asked = [f"{sign} {_shown(row[name])}" for name, sign in signs.items() if name in row]
    if "at_most_floors" in row:
        asked.append(f"≤ {_shown(row['at_most_floors'])} floors")
    return " ".join(asked)


def _met(row: dict[str, Any], ours: float, truth: float | None) -> bool:
    above, below = row.get("at_most", float("inf")), row.get("at_least", -float("inf"))
    if "at_most_floors" in row and truth is not None:
        above = min(above, row["at_most_floors"] * truth)
    above_others = ours >= row.get("below", float("inf"))
    return below <= ours <= above and not above_others and abs(ours) <= row.get("size_at_most", float("inf"))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine(record: Record) -> str:
    machine = record.machine
    cores = record.path.stem.rsplit("-", 2)[1]
    device = cores if machine["backend"] == "cpu" else machine["device"]
    return f"{device}, {'float64' if machine['float64'] else 'float32'}"
