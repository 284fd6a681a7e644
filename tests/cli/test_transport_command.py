"""Transport and ratios through the front door: real files, what is written, refusals."""

import json

import numpy as np
import pytest
from helpers import refusal

from wfr_flows.cli import main

TINY = ["--width", "8", "--batch", "16", "--matching-steps", "400", "--refinement-steps", "2"]


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, position in (
        ("a.csv", rng.normal(size=(60, 1))),
        ("b.csv", 10 + 2 * rng.normal(size=(50, 1))),
        ("flat.csv", rng.normal(size=(5, 2))),
    ):
        header = ",".join(f"x{i + 1}" for i in range(position.shape[1]))
        np.savetxt(name, position, delimiter=",", header=header, comments="")
    (tmp_path / "heavy.csv").write_text("x1,weight\n0,1\n1,2\n")
    (tmp_path / "light.csv").write_text("x1,weight\n0,1\n1,1\n")


@pytest.mark.slow
def test_a_map_of_one_file_to_the_other(capsys):
    assert main(["transport", "a.csv", "b.csv", "--json", "--out", "found", *TINY]) == 0
    summary = json.loads(capsys.readouterr().out)
    # A shift by 10 is nearly all of it, and known after some hundred steps.
    assert summary["certified_lower"] <= summary["certified_upper"]
    np.testing.assert_allclose(summary["cost"], summary["certified_upper"], rtol=0.1)
    assert summary["inverse_error"] < 1e-4
    found = np.load("found/map.npz")
    source = np.loadtxt("a.csv", skiprows=1)[:, None]
    np.testing.assert_allclose(found["source"], source, rtol=1e-5, atol=1e-5)
    assert abs(found["source_mapped"].mean() - 10) < 1
    assert found["target_mapped"].shape == (50, 1)


@pytest.mark.slow
def test_a_ratio_at_points(capsys):
    arguments = ["--at", "a.csv", "--json", "--ratio-steps", "400", *TINY]
    assert main(["ratio", "a.csv", "b.csv", *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    table = np.loadtxt("ratio.csv", delimiter=",", skiprows=1)
    assert table.shape == (60, 2)
    # Ten standard deviations away, B has no density to speak of.
    assert table[:, 1].max() < 0
    np.testing.assert_allclose(-table[:, 1].mean(), summary["divergence_of_source"], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transport", "a.csv", "flat.csv"], "1 coordinates and the target 2"),
        (["transport", "a.csv", "missing.csv"], "missing.csv"),
        (["transport", "heavy.csv", "light.csv"], "keeps mass"),
        (["ratio", "a.csv", "b.csv", "--at", "flat.csv"], "give points of their space"),
        (["ratio", "a.csv", "b.csv", "--at", "b.csv", "--out", "ratio.txt"], "ending"),
        (["transport", "a.csv", "b.csv", "--width", "0"], "whole number"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in refusal(capsys)
