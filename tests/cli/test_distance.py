"""Distances through the front door: real files, closed forms, figures, refusals."""

import functools
import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import refusal

from wfr_flows import static
from wfr_flows.cli import main

BEFORE = "x,y,weight\n0,0,2\n1,0,1\n9,1,0.5\n"
AFTER = "x,y,weight\n0.5,1,3\n1.5,0.5,1\n4,5,0.8\n"


@pytest.fixture(autouse=True)
def default_precision(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "two.csv": "x,weight\n0,2\n",
        "three.csv": "x,weight\n1,3\n",
        "far.csv": "x,weight\n20,3\n",
        "before.csv": BEFORE,
        "after.csv": AFTER,
    }.items():
        Path(name).write_text(text)


def found(capsys, *arguments):
    assert main(["distance", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def two_diracs(*arguments):
    with jax.enable_x64(True):
        return float(static.two_diracs(*(np.asarray(a, float) for a in arguments)))


@pytest.mark.parametrize(("file", "place"), [("three.csv", 1.0), ("far.csv", 20.0)])
def test_two_diracs(file, place, capsys):
    # The command is in double precision of its own accord.
    with jax.enable_x64(False):
        summary = found(capsys, "two.csv", file, "--alpha", "0.7")
    expected = two_diracs([0.0], 2, [place], 3, 0.7)
    np.testing.assert_allclose(summary["squared_distance"], expected, rtol=1e-6)
    np.testing.assert_allclose(summary["distance"], math.sqrt(expected), rtol=1e-6)
    assert summary["lower_bound"] <= expected * (1 + 1e-9)
    assert summary["relative_gap"] <= summary["tolerance"] == 1e-4
    assert summary["converged"]
    assert (summary["source_mass"], summary["target_mass"]) == pytest.approx((2, 3))
    alone = (2, 3) if place > 2 else (0, 0)
    assert (summary["dies"], summary["born"]) == pytest.approx(alone)
    assert (summary["source_points"], summary["target_points"], summary["dimension"]) == (1, 1, 1)
    assert summary["precision"] == "float64"


def test_spherical_normalises(capsys):
    # Between unit Diracs within reach the spherical distance is the Euclidean one.
    summary = found(capsys, "two.csv", "three.csv", "--spherical")
    np.testing.assert_allclose(summary["squared_distance"], 0.5, rtol=1e-6)
    assert summary["spherical"]
    assert summary["source_mass"] == pytest.approx(2)


def test_infinite_alpha_needs_equal_masses(capsys):
    assert main(["distance", "two.csv", "three.csv", "--alpha", "inf"]) == 2
    said = refusal(capsys)
    assert "equal masses" in said
    assert "A has 2 and B 3" in said
    assert "--spherical" in said
    summary = found(capsys, "two.csv", "three.csv", "--alpha", "inf", "--spherical")
    np.testing.assert_allclose(summary["squared_distance"], 0.5, rtol=1e-6)
    assert summary["alpha"] == "inf"


def test_weights_column_beside_an_array_without_names(capsys):
    # Pairs far from each other: their distances add up. The array weighs each of its points one third.
    Path("a.csv").write_text("x,y,size\n0,0,4\n100,0,1\n0,100,2\n")
    np.save("b.npy", np.array([[0.5, 0.0], [101.0, 0.0], [0.0, 100.0]]))
    summary = found(capsys, "a.csv", "b.npy", "--weights", "size")
    pairs = ([0], 4, [0.5]), ([100], 1, [101]), ([100], 2, [100])
    expected = sum(two_diracs(*pair, 1 / 3, 1) for pair in pairs)
    np.testing.assert_allclose(summary["squared_distance"], expected, rtol=1e-4)
    assert summary["dimension"] == 2


def test_chosen_precision_is_kept(capsys, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    with jax.enable_x64(False):
        assert found(capsys, "two.csv", "three.csv")["precision"] == "float32"


def test_bounds_that_stay_apart_are_said_to(capsys, monkeypatch):
    monkeypatch.setattr(static, "wfr", functools.partial(static.wfr, max_iterations=1))
    assert main(["distance", "before.csv", "after.csv", "--tolerance", "1e-9"]) == 0
    said = capsys.readouterr()
    assert re.search(r"converged +│ no", said.out)
    assert "did not fall to 1e-09" in said.err


def test_file_against_itself(capsys):
    summary = found(capsys, "before.csv", "before.csv")
    assert summary["squared_distance"] < 1e-9
    assert summary["converged"]


@pytest.mark.parametrize("arguments", [["before.csv", "after.csv"], ["two.csv", "three.csv", "--spherical"]])
def test_plot_writes_a_figure(arguments, capsys):
    assert main(["distance", *arguments, "--plot", "figure.png"]) == 0
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["distance", *arguments, "--plot", "figure.png"]) == 2
    assert "exists" in refusal(capsys)
    assert {path.name for path in Path().iterdir() if path.suffix == ".partial"} == set()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "required: A, B"),
        (["two.csv"], "required: B"),
        (["two.csv", "nowhere.csv"], "nowhere.csv is not a file"),
        (["two.csv", "before.csv"], "1 coordinates and the target 2"),
        (["two.csv", "three.csv", "--weights", "size"], "no weights 'size'"),
        (["points.npy", "points.npy", "--weights", "size"], "NPY file has none"),
        (["two.csv", "three.csv", "--alpha", "0"], "not positive"),
        (["two.csv", "three.csv", "--tolerance", "0"], "not positive"),
        (["two.csv", "three.csv", "--tolerance", "-1e-3"], "tolerance"),
        (["two.csv", "three.csv", "--tolerance", "nan"], "not positive"),
        (["two.csv", "three.csv", "--tolerance", "small"], "no number"),
        (["two.csv", "three.csv", "--plot", "figure.txt"], ".png, .pdf or .svg"),
        (["two.csv", "three.csv", "--plot", "nowhere/figure.png"], "nowhere"),
        (["two.csv", "three.csv", "--seed", "0"], "--seed"),
        (["negative.csv", "three.csv"], "negative"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, expected, capsys):
    np.save("points.npy", np.zeros((2, 1)))
    Path("negative.csv").write_text("x,weight\n0,-1\n")
    before = set(Path().iterdir())
    assert main(["distance", *arguments]) == 2
    assert expected in refusal(capsys)
    assert set(Path().iterdir()) == before


def test_the_command_prints_what_the_readme_shows(capsys):
    with jax.enable_x64(False):
        assert main(["distance", "before.csv", "after.csv"]) == 0
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"│ ((?:d|d²)_WFR|(?:mass|dies|is born).*?) +│ (.*?) +│", capsys.readouterr().out)
    assert len(rows) == 6
    for name, value in rows:
        assert re.search(rf"│ {name} +│ {re.escape(value)} +│", readme), (name, value)
