"""What all commands share: the version, negative numbers, limits of counts, notes on files."""

import argparse

import numpy as np
import pytest
from helpers import refusal

from wfr_flows import __version__
from wfr_flows.cli import main, options
from wfr_flows.cli.main import _Parser


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"wfr-flows {__version__}"


@pytest.mark.parametrize("text", ["-8e6", "-8E+06", "-.5", "-5.", "-1e-3", "-inf", "-3"])
def test_negative_numbers_are_no_options(text):
    parser = _Parser()
    parser.add_argument("--interval", nargs=2, type=float)
    parser.add_argument("-n", type=int)
    assert parser.parse_args(["--interval", text, "8e6", "-n", "3"]).interval == [float(text), 8e6]


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (options.count, "0"),
        (options.count, "1000000001"),
        (options.count, "9" * 5000),
        (options.count, "1_000"),
        (options.width, "100000"),
        (options.flow_steps, "1000000"),
        (options.positive, "1_000"),
    ],
)
def test_numbers_beyond_their_limits_are_refused(read, text):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(text)
    assert len(str(refused.value)) < 100


def test_what_a_reader_notes_is_told_beside_the_results(tmp_path, capsys):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(";x;y\n0;0,5;1\n1;1,5;2\n")
    arguments = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["distance", *arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert '"dimension": 2' in said.out
    assert said.err.count("semicolons between columns, decimal commas") == 2
    assert said.err.count("holds row numbers and is left out") == 2


def test_weights_without_a_sum_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", position=np.zeros((2, 1)), log_weight=np.full(2, -5000.0))
    np.savez(tmp_path / "b.npz", position=np.ones((2, 1)), log_weight=np.full(2, -5000.0))
    arguments = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    assert main(["distance", *arguments]) == 2
    assert "have the sum 0 in float64" in refusal(capsys)
