"""Snapshots through the front door: what is written, what is refused, what is left alone."""

import io
import json
import shutil
from contextlib import redirect_stdout
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from helpers import refusal

from wfr_flows import dynamics, potentials, training
from wfr_flows.cli import main
from wfr_flows.cli.files import to_json

# Plans of one tolerance in all tests: quick ones.
TINY = ["--quick", "--matching-steps", "150", "--refinement-steps", "10", "--width", "8", "--alpha", "1"]
UNREFINED = ["--quick", "--refinement-steps", "0"]
WRITTEN = {"summary.json", "cells.npz", "trajectories.npz", "snapshots.png", "checkpoint"}


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


def table():
    """A cluster that moves right by 1 a time, and one that stays and halves: 20, then 14 and 15 points.

    In all tests the first snapshot has 20 points, and the largest later one 15: one program for all.
    """
    rng = np.random.default_rng(0)
    rows = []
    for time, (moving, staying) in enumerate([(10, 10), (10, 4), (10, 5)]):
        place = np.concatenate([np.full(moving, float(time)), np.full(staying, -6.0)])
        rows += [(time, x, 0.1 * rng.normal()) for x in place + 0.05 * rng.normal(size=place.size)]
    return np.array(rows)


def write(path, rows, header="day,x,y"):
    np.savetxt(path, rows, delimiter=",", header=header, comments="")
    return path


def run(source, out, *more):
    with jax.enable_x64(False):
        assert main(["snapshots", str(source), "--time", "day", "--out", str(out), *TINY, *more]) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("snapshots")
    with redirect_stdout(io.StringIO()) as said:
        run(write(directory / "cells.csv", table()), directory / "out", "--json")
    (directory / "said.json").write_text(said.getvalue())
    return directory / "out"


@pytest.fixture(scope="module")
def again(finished, tmp_path_factory):
    """The same from the same table, as Parquet where that can be read."""
    directory = tmp_path_factory.mktemp("again")
    source = finished.parent / "cells.csv"
    if find_spec("pyarrow"):
        import pyarrow.parquet

        columns = pyarrow.table(dict(zip(("day", "x", "y"), table().T, strict=True)))
        source = directory / "cells.parquet"
        pyarrow.parquet.write_table(columns, source)
    run(source, directory / "out")
    return directory / "out"


@pytest.fixture(scope="module")
def second(finished, tmp_path_factory):
    """In place of the first, of another seed and far fewer steps; from AnnData where that can be read."""
    directory = tmp_path_factory.mktemp("second")
    shutil.copytree(finished, directory / "out")
    source = finished.parent / "cells.csv"
    if find_spec("anndata"):
        import anndata

        data = anndata.AnnData(X=table()[:, 1:])
        data.obs["day"] = table()[:, 0]
        source = directory / "cells.h5ad"
        data.write_h5ad(source)
    run(source, directory / "out", "--seed", "1", "--matching-steps", "2", *UNREFINED)
    return directory / "out"


def test_a_run_writes_what_it_says(finished):
    out = finished
    assert {path.name for path in out.iterdir()} == WRITTEN
    summary = json.loads((out / "summary.json").read_text())
    said = json.loads((out.parent / "said.json").read_text())
    assert said | {"seconds": 0} == summary | {"seconds": 0}
    assert summary["points"] == [20, 14, 15]
    np.testing.assert_allclose(summary["mass"], [1.0, 0.7, 0.75], rtol=1e-6)
    assert summary["certified_lower"] <= summary["certified_upper"]
    assert max(summary["relative_mass_error"]) < 0.1
    cells = np.load(out / "cells.npz")
    assert cells["velocity"].shape == (49, 2)
    np.testing.assert_allclose(cells["position"], table()[:, 1:], atol=1e-5)
    moving = cells["position"][:, 0] > -3
    # One unit of length a unit of time, in the table's own units.
    np.testing.assert_allclose(cells["velocity"][moving, 0].mean(), 1.0, atol=0.15)
    assert cells["growth"][~moving].mean() < -0.2 < cells["growth"][moving].mean()
    paths = np.load(out / "trajectories.npz")
    assert paths["position"].shape == (2 * 17, 20, 2)


@pytest.mark.slow
def test_the_seed_decides_the_result(finished, again):
    growth = [np.load(place / "cells.npz")["growth"] for place in (finished, again)]
    np.testing.assert_array_equal(*growth)


def test_a_second_run_leaves_its_own_parameters(finished, second):
    inner = dynamics.potential_field(potentials.mlp(2, width=8), dynamics.Geometry(1.0, spherical=False))
    like = dynamics.windowed(inner, np.arange(3.0)).init(jax.random.key(0))
    found = [training.restore(out / "checkpoint", like) for out in (finished, second)]
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, found), strict=True))


@pytest.mark.slow
def test_a_time_is_held_out_of_a_wide_table(tmp_path, capsys):
    rows = table()
    wide = np.concatenate([rows, 1e-3 * np.random.default_rng(1).normal(size=(len(rows), 30))], axis=1)
    source = write(tmp_path / "cells.csv", wide, ",".join(["day", *(f"x{i}" for i in range(32))]))
    arguments = ["snapshots", str(source), "--time", "day", "--components", "auto", "--quiet"]
    arguments += ["--hold-out", "1", "--field", "free"]
    assert main([*arguments, "--out", str(tmp_path / "out"), *TINY, *UNREFINED]) == 0
    assert capsys.readouterr().out == ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["hold_out"] == 1
    assert len(summary["wasserstein_1"]) == 2
    assert summary["field"] == "free"
    cells = np.load(tmp_path / "out" / "cells.npz")
    num = cells["basis"].shape[1]
    assert summary["components"] == num == 2
    assert cells["position"].shape == cells["velocity"].shape == (49, num)
    np.testing.assert_allclose(cells["position"] @ cells["basis"].T + cells["center"], wide[:, 1:], atol=0.1)
    moving = wide[:, 1] > -3
    np.testing.assert_allclose((cells["velocity"] @ cells["basis"].T)[moving, 0].mean(), 1.0, atol=0.15)


@pytest.mark.slow
def test_far_and_unequal_times_are_learned_as_near_and_equal_ones(finished, tmp_path):
    """Windows of a second and of 99,999, in Unix seconds: the same parameters, in other units of time."""
    rows, seconds = table(), 1.6e9 + np.array([0.0, 1.0, 1e5])
    rows[:, 0] = seconds[rows[:, 0].astype(int)]
    source = tmp_path / "cells.csv"
    np.savetxt(source, rows, delimiter=",", header="day,x,y", comments="", fmt="%.17g")
    run(source, tmp_path / "out", "--quiet")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["time"] == seconds.tolist()
    found, expected = (np.load(out / "cells.npz") for out in (tmp_path / "out", finished))
    np.testing.assert_array_equal(found["time"], rows[:, 0])
    np.testing.assert_array_equal(found["mass"], expected["mass"])
    first, last = slice(0, 20), slice(34, 49)
    np.testing.assert_allclose(found["velocity"][first], expected["velocity"][first], rtol=1e-6)
    np.testing.assert_allclose(found["growth"][last] * 99999, expected["growth"][last], rtol=1e-5)
    time = np.load(tmp_path / "out" / "trajectories.npz")["time"]
    assert time.dtype == np.float64
    np.testing.assert_allclose(time[[0, 16, 17, 33]] - 1.6e9, [0, 1, 1, 1e5], atol=1.1)
    np.testing.assert_allclose(np.diff(time[:17]), 1 / 16, rtol=1e-4)


def test_labels_of_times_are_ordered_by_their_numbers(tmp_path, capsys):
    source = tmp_path / "cells.csv"
    rows = [f"day {2 * int(day)}h,{x},{y}" for day, x, y in table()]
    source.write_text("\n".join(["day,x,y", *rows[::-1]]))
    steps = ["--matching-steps", "2", *UNREFINED, "--width", "8", "--alpha", "1"]
    arguments = ["snapshots", str(source), "--time", "day", *steps, "--hold-out", "day 2h"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "times by the numbers in them: 'day 0h' at 0, 'day 2h' at 2, 'day 4h' at 4." in said.err
    assert "day 2h (held out)" in said.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["time"] == [0, 2, 4]
    assert summary["labels"] == ["day 0h", "day 2h", "day 4h"]
    assert summary["hold_out"] == 2
    assert summary["points"] == [20, 14, 15]


@pytest.mark.slow
def test_equal_snapshots_stand_still(tmp_path, capsys):
    # Five of the points stand twice at first, with half the weight.
    point, day = np.r_[:15, :5, :15], np.repeat([0, 1], [20, 15])
    weight = np.where((day == 0) & (point < 5), 0.5, 1.0)
    rows = np.column_stack([day, table()[point, 1:], weight])
    source = write(tmp_path / "cells.csv", rows, "day,x,y,share")
    arguments = ["snapshots", str(source), "--time", "day", "--weights", "share", "--width", "8"]
    arguments += ["--matching-steps", "500", *UNREFINED, "--out", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 0
    assert "hardly differ; alpha is set to a hundredth of the variance" in refusal(capsys)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    np.testing.assert_allclose(summary["alpha"], 0.01 * rows[:, 1:3].var(axis=0).sum(), rtol=1e-4)
    np.testing.assert_allclose(summary["relative_mass_error"], 0, atol=0.05)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "cells.npz")["mass"], 1, atol=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "hour"], "has no 'hour'"),
        (["--time", "day", "--hold-out", "0"], "no time between the ends"),
        (["--time", "day", "--alpha", "-1"], "not positive"),
        (["--time", "day", "--components", "3"], "exceeds the 2 coordinates"),
        (["--time", "day", "--weights", "nothing"], "no weights 'nothing'"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message, tmp_path, capsys):
    source = write(tmp_path / "cells.csv", table())
    assert main(["snapshots", str(source), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in refusal(capsys)
    assert not (tmp_path / "out").exists()


def test_snapshots_that_coincide_leave_no_length_scale(tmp_path, capsys):
    source = write(tmp_path / "cells.csv", [(0, 1, 2)] * 20 + [(1, 1, 2)] * 15)
    arguments = ["snapshots", str(source), "--time", "day", "--components", "auto"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "give --alpha" in refusal(capsys)


def test_one_time_is_not_enough(tmp_path, capsys):
    source = write(tmp_path / "cells.csv", table()[:20])
    assert main(["snapshots", str(source), "--time", "day", "--out", str(tmp_path / "out")]) == 2
    assert "one time only" in refusal(capsys)


def test_results_of_something_else_are_not_replaced(tmp_path, capsys):
    source = write(tmp_path / "cells.csv", table())
    (tmp_path / "cells.npz").write_text("precious")
    assert main(["snapshots", str(source), "--time", "day", "--out", str(tmp_path)]) == 2
    assert "something else" in refusal(capsys)
    assert (tmp_path / "cells.npz").read_text() == "precious"


@pytest.mark.slow
def test_parquet_is_a_table_too(again):
    pytest.importorskip("pyarrow")
    assert json.loads((again / "summary.json").read_text())["table"].endswith("cells.parquet")
    np.testing.assert_allclose(np.load(again / "cells.npz")["position"], table()[:, 1:], atol=1e-5)


def test_anndata_gets_velocity_growth_and_mass(second):
    anndata = pytest.importorskip("anndata")
    written = anndata.read_h5ad(second / "cells.h5ad")
    assert written.obsm["wfr_velocity"].shape == (49, 2)
    assert (written.obs["wfr_mass"] > 0).all()
    assert np.isfinite(written.obs["wfr_growth"]).all()
    np.testing.assert_array_equal(written.X, table()[:, 1:])


@pytest.mark.parametrize("name", ["cells.parquet", "cells.h5ad"])
def test_damaged_tables_are_refused(name, tmp_path, capsys):
    pytest.importorskip("pyarrow" if name.endswith("parquet") else "anndata")
    (tmp_path / name).write_bytes(b"half a file")
    assert main(["snapshots", str(tmp_path / name), "--time", "day", "--out", str(tmp_path / "out")]) == 2
    assert "truncated" in refusal(capsys)


def test_numbers_that_are_not_finite_become_null():
    assert json.loads(to_json({"a": [1.0, float("nan")], "b": {"c": float("inf")}, "d": "inf"})) == {
        "a": [1.0, None],
        "b": {"c": None},
        "d": "inf",
    }
