"""The main job through the front door: real files, damaged files, interruption and resumption."""

import io
import json
from contextlib import chdir, redirect_stdout

import jax
import numpy as np
import pytest

from wfr_flows.cli import main
from wfr_flows.measures import read_particles

TINY = [
    "--num-samples",
    "40",
    "--width",
    "4",
    "--matching-steps",
    "20",
    "--refinement-steps",
    "40",
    "--batch",
    "16",
    "--num-steps",
    "2",
    "--seed",
    "3",
]
WRITTEN = {"summary.json", "geodesic.png", "particles.npz", "checkpoint", "settings.json"}


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The output directory of the command in a fresh directory."""
    directory, said = tmp_path_factory.mktemp("run"), io.StringIO()
    with chdir(directory), redirect_stdout(said), jax.enable_x64(False):
        assert main(["geodesic", *TINY]) == 0
    assert "exact d²_SWFR between samples" in said.getvalue()
    return directory / "wfr-geodesic"


def read_arrays(out):
    with np.load(out / "particles.npz") as arrays:
        return dict(arrays)


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_run_writes_everything_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == WRITTEN
    found = summary(finished)
    assert 0 <= found["exact_lower"] <= found["exact_upper"]
    assert found["exact_upper"] - found["exact_lower"] <= 1.01e-3 * found["exact_upper"]
    assert np.isfinite([found["action"], found["kl"]]).all()
    assert 1 <= found["effective_sample_size"] <= found["num_generated"]
    assert set(found["seconds"]) >= {"exact", "matching", "refinement"}
    assert found["alpha"] == 1.0
    assert (finished / "geodesic.png").read_bytes().startswith(b"\x89PNG")
    arrays = read_arrays(finished)
    np.testing.assert_allclose(np.exp(arrays["log_weight"]).sum(), 1, rtol=1e-4)
    # The semi-coupling's marginals are the two measures, each of mass 1.
    np.testing.assert_allclose(arrays["semi_coupling_source_mass"].sum(), 1, rtol=1e-4)
    np.testing.assert_allclose(arrays["semi_coupling_target_mass"].sum(), 1, rtol=1e-4)


@pytest.mark.slow
def test_weighted_csv_and_infinite_alpha(tmp_path):
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=40), rng.uniform(0.1, 1, 40)])
    np.savetxt(tmp_path / "cells.csv", table, delimiter=",", header="x,mass", comments="")
    arguments = ["--source", str(tmp_path / "cells.csv"), "--weights", "mass", "--alpha", "inf"]
    assert main(["geodesic", *TINY, *arguments, "--out", str(tmp_path / "out")]) == 0
    found = summary(tmp_path / "out")
    assert found["alpha"] == "inf"
    assert found["kl"] is None
    assert np.isfinite(found["cross_entropy"])
    # Optimal transport changes no weights: every generated particle weighs the same.
    np.testing.assert_allclose(found["effective_sample_size"], found["num_generated"], rtol=1e-3)


def test_two_files_skip_refinement_and_say_so(tmp_path, capsys):
    rng = np.random.default_rng(0)
    # As many as are drawn for the first run, so that the programs are the same.
    np.savez(tmp_path / "a.npz", position=rng.normal(size=(40, 1)), weight=np.arange(40.0))
    np.save(tmp_path / "b.npy", rng.normal(size=(40, 1)) + 1)
    arguments = [
        "--source",
        str(tmp_path / "a.npz"),
        "--target",
        str(tmp_path / "b.npy"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["geodesic", *TINY, *arguments]) == 0
    found = summary(tmp_path / "out")
    assert found["kl"] is None
    assert found["cross_entropy"] is None
    assert "refinement" not in found["seconds"]
    assert "not computed (no target density)" in capsys.readouterr().out


def write(path, text):
    path.write_text(text)
    return str(path)


BAD_FILES = {
    "nan.csv": ("x,y\n1,2\nnan,3\n", "NaN"),
    "negative.csv": ("x,weight\n1,0.5\n2,-1\n", "negative"),
    "zero.csv": ("x,weight\n1,0\n2,0\n", "all zero"),
    "ragged.csv": ("x,y\n1,2\n3\n", "row 3"),
    "empty.csv": ("", "empty"),
    "header.csv": ("x,y\n", "no rows"),
    "truncated.npz": ("PK\x03\x04half", "truncated"),
    "words.csv": ("x\n1\ntwo\n", "two"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_one_sentence_and_exit_code_two(name, tmp_path, capsys):
    text, expected = BAD_FILES[name]
    path = write(tmp_path / name, text)
    assert main(["geodesic", "--source", path, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert name in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--alpha", "0"], "alpha"),
        (["--alpha", "-1"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha", "wide"], "no number"),
        (["--source", "nowhere"], "neither a file nor one of"),
        (["--source", "nowhere.csv"], "not a file"),
        (["--batch", "0"], "batch"),
        (["--action-weight", "-1"], "action-weight"),
        (["--no-such-option"], "no-such-option"),
        (["--seed", "9" * 20], "seed"),
        (["--seed", "-1"], "seed"),
        (["--weights", "mass"], "no file is given"),
        (["--resume"], "no run to resume"),
    ],
)
def test_bad_option_is_one_sentence_and_exit_code_two(arguments, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["geodesic", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_in_the_output_directory_are_kept(tmp_path, capsys):
    (tmp_path / "checkpoint").mkdir()
    write(tmp_path / "checkpoint" / "thesis.txt", "precious")
    assert main(["geodesic", "--out", str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "checkpoint" / "thesis.txt").read_text() == "precious"


def test_settings_of_another_program_are_kept(tmp_path, capsys):
    for name in ("settings.json", "summary.json"):
        write(tmp_path / name, '{"theme": 1}')
    assert main(["geodesic", "--out", str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "summary.json"}


def test_own_results_as_source_are_not_replaced(finished, capsys):
    source = str(finished / "particles.npz")
    before = (finished / "particles.npz").read_bytes()
    assert main(["geodesic", "--source", source, "--out", str(finished)]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert (finished / "particles.npz").read_bytes() == before


def test_two_files_of_different_width_are_refused(tmp_path, capsys):
    one, two = write(tmp_path / "a.csv", "1.5,2\n3,4\n"), write(tmp_path / "b.csv", "1\n2\n")
    assert main(["geodesic", "--source", one, "--target", two]) == 2
    assert "2 coordinates and the target 1" in capsys.readouterr().err


def test_output_directory_that_is_a_file_is_refused_and_kept(tmp_path, capsys):
    path = write(tmp_path / "precious", "data")
    assert main(["geodesic", "--out", path]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "data"


def test_finished_run_generates_and_has_a_density(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(finished), "-n", "400"]) == 0
    samples = read_particles("samples.csv")
    assert samples.position.shape == (400, 1)
    np.save("nodes.npy", np.linspace(-15, 15, 2001))
    assert main(["density", str(finished), "nodes.npy"]) == 0
    density = np.exp(np.loadtxt("density.csv", delimiter=",", skiprows=1)[:, 1])
    # A tiny run, of four Runge-Kutta steps.
    np.testing.assert_allclose(density.sum() * 0.015, 1, atol=0.1)
    # Generated samples weigh the points that the mean is taken over.
    capsys.readouterr()
    assert main(["density", str(finished), "samples.csv", "--out", "of_samples.csv", "--json"]) == 0
    log_density = np.loadtxt("of_samples.csv", delimiter=",", skiprows=1)[:, 1]
    mean = json.loads(capsys.readouterr().out)["mean_log_density"]
    np.testing.assert_allclose(mean, samples.weight @ log_density, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("settings.json", {"target": "cells.csv"}, "leads to the samples in cells.csv"),
        ("settings.json", {"width": 5}, "checkpoint"),
        ("settings.json", {"matching_steps": None}, "damaged"),
        ("settings.json", {"refinement_steps": 41}, "checkpoint"),
        ("summary.json", {"run": "another"}, "no finished run"),
        ("summary.json", {"dimension": None}, "damaged"),
    ],
)
def test_runs_that_cannot_generate_are_refused(name, change, expected, finished, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint").symlink_to(finished / "checkpoint")
    for file in ("settings.json", "summary.json"):
        write(out / file, (finished / file).read_text())
    write(out / name, json.dumps({**json.loads((out / name).read_text()), **change}))
    samples = tmp_path / "samples.csv"
    assert main(["generate", str(out), "-n", "9", "--out", str(samples)]) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert "\n" not in said
    assert not samples.exists()


def test_failed_training_exits_with_one_and_leaves_nothing_half_done(tmp_path, capsys):
    # Coordinates at the edge of float32 overflow in the first step.
    path = write(tmp_path / "far.csv", "".join(f"{number}e30\n" for number in range(1, 41)))
    out = tmp_path / "out"
    assert main(["geodesic", *TINY, "--source", path, "--out", str(out)]) == 1
    assert "non-finite at step 0" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "exact"), [("0.5", 0.89545), ("1", 1.37588), ("10", 2.49636), ("inf", 2.70695)]
)
def test_main_job_meets_the_exact_value(alpha, exact, tmp_path):
    # Bounds of d²_SWFR of the true densities, from a fine grid.
    assert main(["geodesic", "--alpha", alpha, "--out", str(tmp_path / "out")]) == 0
    found = summary(tmp_path / "out")
    np.testing.assert_allclose(found["action"], exact, rtol=0.015)
    assert found["kl"] <= 0.01
    assert found["momentum_variation"] <= 0.03
    assert found["potential_slope_error"] <= 0.03
