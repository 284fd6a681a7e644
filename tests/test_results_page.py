"""The results page says what the records hold, and the runner knows every benchmark."""

import argparse
import json
import tomllib

import pytest

from benchmarks import __main__ as runner
from benchmarks import page


def row(**entries):
    return {"source": "a", "experiment": "e", "number": "n", "record": "speed-thing", "value": "x"} | entries


def shown(tmp_path, lines, *, smoke=False, **entries):
    machine = {"backend": "cpu", "device": "cpu", "float64": False}
    content = [{"machine": machine, "smoke": smoke}, *lines]
    path = tmp_path / "speed-thing-2core-cpu.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in content) + "\n")
    experiments = {"source": [{"key": "a", "title": "A"}], "row": [row(**entries)]}
    return page.table(experiments, page.records(tmp_path)).splitlines()[-1]


def test_the_page_is_up_to_date():
    assert page.current() == (page.HERE / "README.md").read_text(), "run python -m benchmarks --page"


def test_a_row_is_read_from_the_lines_it_names(tmp_path):
    lines = [{"dim": 2, "x": [1.0, 5.0]}, {"dim": 3, "x": [7.0, 8.0]}, {"dim": 2, "x": [1.0, 3.0]}]
    line = shown(tmp_path, lines, where={"dim": 2}, value="x.1", reduce="mean", at_most=4.5)
    assert "| ≤ 4.5 | **4** |  | yes |" in line
    assert "[2core, float32](results/speed-thing-2core-cpu.jsonl)" in line


@pytest.mark.parametrize(
    ("bounds", "met"),
    [({"at_most": 1.0}, "**no**"), ({"at_least": 1.0}, "yes"), ({"size_at_most": 1.5}, "**no**"), ({}, "")],
)
def test_what_falls_short_is_named(tmp_path, bounds, met):
    cells = shown(tmp_path, [{"x": 2.0}], **bounds).split(" | ")
    assert cells[6].strip() == met


@pytest.mark.parametrize(("floor", "met"), [(1.5, "yes"), (0.5, "**no**")])
def test_what_is_asked_in_floors_is_held_against_the_record(tmp_path, floor, met):
    cells = shown(tmp_path, [{"x": 2.0, "f": floor}], truth="f", at_most_floors=2).split(" | ")
    assert cells[3].strip() == "≤ 2 floors"
    assert cells[6].strip() == met


@pytest.mark.parametrize(("ours", "met"), [(1.5, "yes"), (2.0, "**no**")])
def test_what_is_asked_of_other_lines_is_held_against_the_best_of_them(tmp_path, ours, met):
    lines = [{"m": "ours", "x": ours}, {"m": "a", "x": 2.0}, {"m": "b", "x": 5.0}]
    cells = shown(tmp_path, lines, where={"m": "ours"}, below=[{"m": "a"}, {"m": "b"}]).split(" | ")
    assert cells[3].strip() == "< 2"
    assert cells[6].strip() == met


def test_a_row_without_a_line_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no line of"):
        shown(tmp_path, [{"dim": 2, "x": 1.0}], where={"dim": 3})


def test_what_means_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="smoke run"):
        shown(tmp_path, [{"x": 1.0}], smoke=True)
    with pytest.raises(ValueError, match="too many values"):
        shown(tmp_path, [{"x": 1.0}, {"x": 2.0}])
    (tmp_path / "speed-thing-1core-cpu.jsonl").write_text(
        (tmp_path / "speed-thing-2core-cpu.jsonl").read_text()
    )
    with pytest.raises(ValueError, match="of one name"):
        shown(tmp_path, [{"x": 1.0}])


def test_the_runner_and_the_page_name_every_benchmark():
    names = runner.modules()
    assert set(runner.PRESET) <= set(names)
    text = (page.HERE / "README.md").read_text()
    missing = [name for name in names if f"python -m benchmarks.{name}`" not in text]
    assert not missing
    given = argparse.Namespace(smoke=True, full=False, tables=None, only=["speed.static"])
    assert runner.commands(given) == {"speed-static": ["speed.static", "--smoke"]}


def test_a_record_is_named_after_its_machine():
    machine = {"backend": "gpu", "num_devices": 1, "device": "NVIDIA H200-x"}
    assert runner.device(machine) == "1x-NVIDIA_H200_x"
    assert runner.device(machine | {"backend": "cpu"}).endswith("core-cpu")


def test_everything_on_the_page_can_be_run_again():
    given = argparse.Namespace(smoke=False, full=True, tables=page.HERE, only=None)
    experiments = tomllib.loads((page.HERE / "experiments.toml").read_text())
    assert {row["record"] for row in experiments["row"]} <= set(runner.commands(given))
