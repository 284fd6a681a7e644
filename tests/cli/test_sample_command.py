"""``wfr-flows sample`` through its front door."""

import json

import jax
import numpy as np
import pytest
from helpers import refusal

from wfr_flows.cli import main

TINY = ["--steps", "3", "--iterations", "60", "--batch", "128", "--num-particles", "512", "--units", "2"]


@pytest.fixture
def target(tmp_path, monkeypatch):
    """A module of the user's in the current directory, of a name that no other test has imported."""
    name = f"target_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "import jax.numpy as jnp\n"
        "def gaussian(x):\n"
        "    return 5.0 - 0.5 * jnp.sum((x - 0.5) ** 2)\n"
        "def modes(x):\n"
        "    return jnp.logaddexp(*(-0.5 * jnp.sum((x - m) ** 2) for m in (-4.0, 4.0)))\n"
        "def vector(x):\n"
        "    return x\n"
        "def outside(x):\n"
        "    return jnp.where(x[0] > 1, 0.0, -jnp.inf)\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with jax.enable_x64(False):
        yield name


def test_samples_of_a_gaussian_and_its_normaliser(target, tmp_path, capsys):
    given = ["sample", "--log-density", f"{target}:gaussian", "--dim", "2", "--samples", "500", "--json"]
    assert main([*given, "--step-size", "1", "--out", "first", *TINY]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "first/summary.json").read_text())
    exact = 5 + np.log(2 * np.pi)
    assert abs(summary["log_normaliser"] - exact) < 0.05
    assert summary["effective_sample_size"] > 450
    assert 0 <= summary["kl_divergence"] < 0.05
    assert np.all(np.diff(summary["energy"]) < 0)
    found = np.load(tmp_path / "first/samples.npz")
    assert found["position"].shape == (500, 2)
    assert np.abs(found["position"].mean(axis=0) - 0.5).max() < 0.2
    np.testing.assert_allclose(np.exp(found["log_weight"]).sum(), 1.0, rtol=1e-6)
    exponent = -0.5 * np.sum((found["position"] - 0.5) ** 2, axis=1) - np.log(2 * np.pi)
    assert np.abs(found["log_density"] - exponent).mean() < 0.1
    # A second run may replace what the first one wrote, and repeats it.
    assert main([*given, "--step-size", "1", "--out", "first", *TINY]) == 0
    assert json.loads(capsys.readouterr().out)["log_normaliser"] == summary["log_normaliser"]


def test_a_falling_temperature_finds_modes_apart(target, capsys):
    given = ["sample", "--log-density", f"{target}:modes", "--dim", "1", "--start", "4", "--json", *TINY]
    hot = ["--temperature", "16", "--step-size", "20", "--steps", "12"]
    assert main([*given, *hot]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert abs(summary["log_normaliser"] - np.log(2 * np.sqrt(2 * np.pi))) < 0.1
    assert summary["kl_divergence"] < 0.1
    position = np.load("wfr-sample/samples.npz")["position"]
    assert abs(np.mean(position > 0) - 0.5) < 0.05


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}", "MODULE:FUNCTION"),
        ("{}:missing", "cannot be used"),
        ("no_such_module:f", "cannot be used"),
        ("{}:vector", "no finite scalar"),
        ("{}:number", "cannot be used"),
        ("{}:outside", "origin"),
    ],
)
def test_functions_of_no_use_are_refused(name, message, target, capsys, tmp_path):
    assert main(["sample", "--log-density", name.format(target), "--dim", "2"]) == 2
    assert message in refusal(capsys)
    assert not (tmp_path / "wfr-sample").exists()


def test_files_of_something_else_stay(target, capsys, tmp_path):
    (tmp_path / "wfr-sample").mkdir()
    (tmp_path / "wfr-sample/samples.npz").write_text("mine")
    assert main(["sample", "--log-density", f"{target}:gaussian", "--dim", "1"]) == 2
    assert "something else" in refusal(capsys)
