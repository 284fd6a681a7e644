"""The command ``generate-from``, through its front door."""

import json

import numpy as np
import pytest

from tests.helpers import few_lines, refusal
from wfr_flows.cli import main

TINY = ["--start-steps", "20", "--steps", "2", "--batch", "16", "--width", "4", "--num-steps", "2"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "points.csv"
    x = np.random.default_rng(0).normal(5, 3, (40, 2))
    np.savetxt(path, np.column_stack([x, np.arange(40.0)]), delimiter=",", header="a,b,share", comments="")
    return path


def test_writes_samples_at_the_scale_of_the_table(table, tmp_path, capsys, monkeypatch):
    few_lines(monkeypatch)
    out = tmp_path / "samples.npy"
    code = main(["generate-from", str(table), "--weights", "share", "--out", str(out), "--json", *TINY])
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    samples = np.load(out)
    assert samples.shape == (40, 2)
    assert summary["points"] + summary["held_out"] == 40
    # After so few steps samples are still noise, at the center and scale of the data.
    assert np.all(np.abs(samples.mean(axis=0) - 5) < 3)
    assert np.all(samples.std(axis=0) < 9)


@pytest.mark.parametrize(
    ("content", "said"),
    [("a,b\n1,2\n3,4\n", "20"), ("a\n" + "1\n" * 30, "same"), ("a\nnan\n", "NaN"), ("", "empty")],
)
def test_refusals(tmp_path, capsys, content, said):
    path = tmp_path / "points.csv"
    path.write_text(content)
    assert main(["generate-from", str(path), "--out", str(tmp_path / "out.csv"), *TINY]) == 2
    assert said in refusal(capsys)


def test_nothing_is_replaced(table, capsys):
    assert main(["generate-from", str(table), "--out", str(table), *TINY]) == 2
    assert "exists" in refusal(capsys)
