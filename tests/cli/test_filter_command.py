"""The command ``filter``, through its front door."""

import json

import numpy as np
import pytest

from tests.helpers import refusal
from wfr_flows.cli import main

LINEAR = """
import jax.numpy as jnp
from wfr_flows.inference.filtering import LinearGaussian

one = jnp.ones((1, 1))
model = LinearGaussian(-one, jnp.zeros(1), one, one, 0.5 * one, jnp.zeros(1), one)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "linear.py").write_text(LINEAR)
    (tmp_path / "seen.csv").write_text("time,y\n0.5,0.4\n1.0,-0.2\n2.0,0.9\n")
    return tmp_path


def command(files, *more, model="linear.py", seen="seen.csv", out="out"):
    given = [str(files / seen), "--model", str(files / model), "--out", str(files / out), "--json"]
    return main(["filter", *given, *more])


@pytest.mark.slow
def test_methods_agree_with_the_exact_one(files, capsys):
    few = ["--particles", "400", "--num-steps", "2"]
    options = {
        "kalman": [],
        "bootstrap": ["--particles", "4000", "--num-steps", "10"],
        "grid": ["--interval", "-5", "5", "--num-steps", "100"],
        "wfr": [*few, "--iterations", "60", "--threshold", "0"],
    }
    found = {}
    for method, more in options.items():
        assert command(files, "--method", method, *more, "--until", "2.5", out=method) == 0
        found[method] = json.loads(capsys.readouterr().out)
        arrays = np.load(files / method / "filtered.npz")
        np.testing.assert_allclose(arrays["mean"].tolist(), found[method]["mean"], rtol=1e-6)
        assert arrays["position"].shape[0] == 4
        np.testing.assert_allclose(np.exp(arrays["log_weight"]).sum(axis=1), 1, rtol=1e-4)
        assert (files / method / "filtered.png").stat().st_size > 1000
    exact = found["kalman"]
    assert exact["log_evidence_by_time"][-1] == 0
    assert exact["effective_sample_size"] == [None] * 4
    for method, atol in (("bootstrap", 0.1), ("grid", 0.02), ("wfr", 0.15)):
        np.testing.assert_allclose(found[method]["mean"], exact["mean"], atol=atol)
        np.testing.assert_allclose(
            found[method]["standard_deviation"], exact["standard_deviation"], atol=atol
        )
        np.testing.assert_allclose(found[method]["log_evidence"], exact["log_evidence"], atol=atol)


def test_the_same_seed_gives_the_same_particles(files):
    for out in ("a", "b"):
        assert command(files, "--method", "bootstrap", "--particles", "50", "--num-steps", "1", out=out) == 0
    first, second = (np.load(files / out / "filtered.npz")["position"] for out in ("a", "b"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("linear.py", "x = 1\n", "defines no `model`"),
        ("linear.py", "import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("seen.csv", "time,y\n1.0,0.4\n0.5,-0.2\n", "increase"),
        ("seen.csv", "when,y\n1.0,0.4\n", "no 'time'"),
        ("seen.csv", "time,y,z\n1.0,0.4,1.0\n", "fit"),
        ("seen.csv", "time,y\n", "no rows"),
    ],
)
def test_refusals(files, capsys, name, content, said):
    (files / name).write_text(content)
    assert command(files, "--method", "kalman") == 2
    assert said in refusal(capsys)
    assert not (files / "out").exists()


def test_methods_that_do_not_fit_are_refused(files, capsys):
    assert command(files, "--method", "grid") == 2
    assert "--interval" in refusal(capsys)
    text = LINEAR + "model = model.state_space()\n"
    (files / "general.py").write_text(text)
    assert command(files, "--method", "kalman", model="general.py") == 2
    assert "linear" in refusal(capsys)
    assert command(files, model="missing.py") == 2
    assert "not a file" in refusal(capsys)
    impossible = (
        text
        + "never = model.sensor._replace(log_likelihood=lambda t, x, y: jnp.log(0 * y[0]))\n"
        + "model = model._replace(sensor=never)\n"
    )
    (files / "general.py").write_text(impossible)
    assert command(files, "--method", "bootstrap", "--particles", "9", model="general.py") == 2
    assert "at time 0.5" in refusal(capsys)


HEAD = """
from __future__ import annotations
import jax.numpy as jnp
from wfr_flows import measures
from wfr_flows.inference.filtering import LinearGaussian, Sensor, StateSpace, gaussian_sensor, state_space
law, sensor = measures.standard_normal(1), gaussian_sensor(1.0)
def drift(t, x):
    return -x
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model = state_space(law, sensor, drift=lambda t, x: undefined * x, noise=1.0)",
            "NameError",
        ),
        (
            "model = state_space(law, sensor, drift=lambda t, x: x[0], noise=1.0)",
            "drift is an array of shape ()",
        ),
        (
            "model = state_space(law, sensor, drift=drift, noise=lambda t, x: 1.0)",
            "noise is an array of shape ()",
        ),
        ("model = state_space(law, sensor, drift=drift, noise=lambda t, x: [1.0])", "noise is list"),
        (
            "sensor = Sensor(lambda t, x, y: x.nothing, sensor.draw)\n"
            "model = state_space(law, sensor, drift=drift, noise=1.0)",
            "AttributeError",
        ),
        ("model = state_space(law, sensor, potential=lambda x: x)", "cannot be used"),
        ("model = LinearGaussian([[-1]], [0], [[1]], [[1]], [[1]], [0], [[1]])", "drift is a list"),
        ("model = StateSpace(*[None] * 7)", "cannot be used"),
        ("model = state_space(law, gaussian_sensor(-1.0), drift=drift, noise=1.0)", "deviation"),
        ("import sys\nsys.exit('away')", "SystemExit: away"),
        ("model = state_space(law, sensor, drift=lambda t, x: exit(3), noise=1.0)", "SystemExit"),
        (
            "model = state_space(law, Sensor(lambda t, x, y: jnp.log(x[0] - 50) * y[0], sensor.draw),"
            " drift=drift, noise=1.0)",
            "log-likelihood of the model",
        ),
    ],
)
def test_bad_models_are_told_in_one_sentence(files, capsys, text, said):
    (files / "bad.py").write_text(HEAD + text + "\n")
    assert (
        command(files, "--method", "bootstrap", "--particles", "9", "--num-steps", "1", model="bad.py") == 2
    )
    assert said in refusal(capsys)
    assert not (files / "out").exists()


def test_model_files_are_loaded_as_python_loads_them(files, capsys):
    """With neighbours, dataclasses, and prints that do not disturb the JSON."""
    (files / "beside_the_model.py").write_text("rate = 1.0\n")
    (files / "whole.py").write_text(
        HEAD
        + "import dataclasses\nfrom beside_the_model import rate\nprint('loading')\n"
        + "@dataclasses.dataclass\nclass Rates:\n    rate: float = rate\n"
        + "def drift(t, x):\n    print('tracing')\n    return -Rates().rate * x\n"
        + "model = state_space(law, sensor, drift=drift, noise=1.0)\n"
    )
    given = ["--method", "bootstrap", "--particles", "50", "--num-steps", "1"]
    assert command(files, *given, model="whole.py") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["particles"] == 50
    assert "loading" in printed.err
    assert "tracing" in printed.err


def test_an_outlier_that_leaves_few_particles_is_told(files, capsys):
    (files / "seen.csv").write_text("time,y\n0.5,0.4\n1.0,9\n2.0,0.9\n")
    assert command(files, "--method", "bootstrap", "--particles", "50", "--num-steps", "1") == 0
    printed = capsys.readouterr()
    assert min(json.loads(printed.out)["effective_sample_size"]) < 10
    assert "law at time 1 rests on" in printed.err


def test_grids_that_are_too_narrow_are_told(files, capsys):
    given = ["--method", "grid", "--num-steps", "20", "--interval"]
    assert command(files, *given, "-1", "5") == 2
    assert "initial law has mass" in refusal(capsys)
    (files / "free.py").write_text(LINEAR.replace("-one,", "2 * one,", 1))
    assert command(files, *given, "-5", "5", model="free.py") == 0
    assert "wider --interval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "kalman", "--interval", "-1", "1"], "--interval"),
        (["--method", "kalman", "--iterations", "3"], "--iterations"),
        (["--method", "grid", "--interval", "-5e0", "5", "--particles", "3"], "--particles"),
        (["--method", "metropolis", "--threshold", "0.5"], "--threshold"),
        (["--method", "kalman", "--num-steps", "3"], "--num-steps"),
        (["--method", "kalman", "--until", "2"], "--until 2 is not later"),
        (["--method", "kalman", "--until", "nan"], "--until nan is not later"),
    ],
)
def test_options_of_no_use_are_refused(files, capsys, more, said):
    assert command(files, *more) == 2
    assert said in refusal(capsys)


def test_flows_refuse_noise_that_depends_on_the_state(files, capsys):
    (files / "scaled.py").write_text(
        HEAD + "model = state_space(law, sensor, drift=drift, noise=lambda t, x: (1 + x**2)[:, None])\n"
    )
    assert command(files, model="scaled.py") == 2
    assert "--method bootstrap" in refusal(capsys)


def test_laws_that_the_precision_or_the_grid_cannot_hold_are_told(files, capsys):
    sharp = LINEAR.replace("0.5 * one", "1e-6 * one")
    (files / "sharp.py").write_text(sharp)
    more = ["--method", "grid", "--interval", "-5", "5", "--num-steps", "20"]
    assert command(files, *more, model="sharp.py") == 0
    assert "sharper than the grid" in capsys.readouterr().err
    (files / "exact.py").write_text(LINEAR.replace("0.5 * one", "0 * one"))
    assert command(files, "--method", "kalman", model="exact.py", out="none") == 2
    assert "error, the covariance of the sensor's noise" in refusal(capsys)
    far = LINEAR.replace("-one, jnp.zeros(1), one", "0 * one, jnp.zeros(1), 1e-3 * one")
    (files / "far.py").write_text(far.replace("jnp.zeros(1), one)", "jnp.full(1, 1e14), 1e-3 * one)"))
    (files / "far.csv").write_text("time,y\n0.5,100000000000000\n")
    assert command(files, "--method", "kalman", model="far.py", seen="far.csv", out="far") == 0
    assert "subtract an origin" in capsys.readouterr().err
