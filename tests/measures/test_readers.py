import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wfr_flows.measures import ReadingNote, read_particles, read_with_times, times_of
from wfr_flows.measures.times import Labels

POINTS = np.array([[1.0, 2.0], [3.0, -4.5], [1e-3, 6e2]])
WEIGHT = np.array([1.0, 0.0, 2.5])


def _write(folder, name, content):
    path = Path(folder) / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    return path


def _csv(header=None, separator=",", columns=POINTS):
    rows = [separator.join(repr(float(c)) for c in row) for row in columns]
    return "\n".join(([separator.join(header)] if header else []) + rows) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", [None, ["a", "b"]])
def test_csv_with_and_without_header_in_every_separator(tmp_path, separator, header):
    measure = read_particles(_write(tmp_path, "p.csv", _csv(header, separator)))
    np.testing.assert_array_equal(measure.position, POINTS)
    np.testing.assert_allclose(measure.weight, 1 / 3)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".CSV"])
def test_text_endings(tmp_path, ending):
    measure = read_particles(str(_write(tmp_path, "p" + ending, _csv(separator="\t"))))
    np.testing.assert_array_equal(measure.position, POINTS)


@pytest.mark.parametrize("name", ["weight", "weights"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_csv_weight_column_anywhere(tmp_path, name, place):
    header = ["x", "y"]
    header.insert(place, name)
    path = _write(tmp_path, "p.csv", _csv(header, columns=np.insert(POINTS, place, WEIGHT, axis=1)))
    measure = read_particles(path)
    np.testing.assert_array_equal(measure.position, POINTS)
    np.testing.assert_allclose(measure.weight, WEIGHT, rtol=1e-14)


def test_csv_weight_column_by_another_name(tmp_path):
    path = _write(
        tmp_path, "p.csv", _csv(["likelihood", "x", "y"], columns=np.insert(POINTS, 0, WEIGHT, axis=1))
    )
    np.testing.assert_allclose(read_particles(path, weight="likelihood").weight, WEIGHT, rtol=1e-14)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_log_weights_stand_as_they_are_in_the_file(tmp_path, shift):
    log_weight = np.array([shift, shift - 1.0, shift - 2.0])
    header = ["x", "y", "log_weight"]
    path = _write(tmp_path, "p.csv", _csv(header, columns=np.column_stack([POINTS, log_weight])))
    measure = read_particles(path)
    np.testing.assert_allclose(measure.normalise().weight, np.exp(log_weight) / np.exp(log_weight).sum())
    # The docstring: weights as they stand in the file, not normalised.
    np.testing.assert_allclose(measure.log_weight, log_weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "log_weight", [[-5000.0, -5001.0, -5002.0], [900.0, 899.0, 898.0], [0.0, -np.inf, -1.0]]
)
def test_log_weights_beyond_the_range_of_exp(tmp_path, log_weight):
    path = tmp_path / "p.npz"
    np.savez(path, position=POINTS, log_weight=np.array(log_weight))
    expected = np.exp(np.array(log_weight) - max(log_weight))
    np.testing.assert_allclose(read_particles(path).normalise().weight, expected / expected.sum(), rtol=1e-12)


def test_log_weight_by_another_name(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, position=POINTS, log_likelihood=np.log([1.0, 2.0, 5.0]))
    measure = read_particles(path, weight="log_likelihood").normalise()
    np.testing.assert_allclose(measure.weight, [0.125, 0.25, 0.625], rtol=1e-12)


def test_integer_log_weights(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, position=POINTS, log_weight=np.array([0, -1, -2]))
    expected = np.exp([0.0, -1.0, -2.0])
    np.testing.assert_allclose(read_particles(path).normalise().weight, expected / expected.sum(), rtol=1e-12)


def test_csv_quirks_byte_order_mark_blank_lines_spaces_quotes_windows_ends(tmp_path):
    text = '\ufeff"a" , b\r\n1.0, 2.0\r\n\r\n"3.0",-4.5\r\n , \r\n1e-3,6e2'
    measure = read_particles(_write(tmp_path, "p.csv", text.encode("utf-8")))
    np.testing.assert_array_equal(measure.position, POINTS)


DIALECTS = {
    "semicolons and decimal commas": "x;y\n1,5;-2,25\n3;4e2\n",
    "the same without a header": "1,5;-2,25\n3;4e2\n",
    "tabs and decimal commas": "x\ty\n1,5\t-2,25\n3\t4e2\n",
    "blanks": "x  y\n 1.5   -2.25\n3 \t 4e2\n",
    "blanks and decimal commas": "1,5 -2,25\n3 4e2\n",
    "quoted decimal commas": 'x,y\n"1,5","-2,25"\n3,4e2\n',
    "dots between thousands": "x;y\n1,5;-2,25\n3;400,0\n1.234,5;1.234.567\n",
    "commas between thousands": 'x,y\n1.5,-2.25\n3,400\n"1,234.5","1,234,567"\n',
    "blanks between thousands": "x;y\n1,5;-2,25\n3;400\n1 234,5;1\u202f234\u202f567\n",
    "apostrophes between thousands": "x;y\n1.5;-2.25\n3;400\n1'234.5;1'234'567\n",
}


@pytest.mark.parametrize("kind", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_dialect_of_a_table_is_understood_and_told(tmp_path, kind, encoding):
    path = _write(tmp_path, "p.csv", DIALECTS[kind].encode(encoding))
    with pytest.warns(ReadingNote, match=r"p\.csv is read with"):
        measure = read_particles(path)
    expected = [[1.5, -2.25], [3.0, 400.0], [1234.5, 1234567.0]]
    np.testing.assert_array_equal(measure.position, expected[: len(measure.position)])


def test_whole_numbers_without_a_header_are_no_decimals(tmp_path):
    rows = np.random.default_rng(0).integers(10, 100, (60, 2))
    path = _write(tmp_path, "p.csv", "\n".join(f"{a},{b}" for a, b in rows))
    np.testing.assert_array_equal(read_particles(path).position, rows)


@pytest.mark.parametrize(("name", "first"), [("", 0), ("Unnamed: 0", 0), ("", 1)])
def test_row_numbers_of_a_data_frame_are_no_coordinate(tmp_path, name, first):
    text = f"{name},x,y\n" + "".join(f"{first + i},{a},{b}\n" for i, (a, b) in enumerate(POINTS))
    with pytest.warns(ReadingNote, match="column 1, which has no name, holds row numbers and is left out"):
        measure = read_particles(_write(tmp_path, "p.csv", text))
    np.testing.assert_array_equal(measure.position, POINTS)


@pytest.mark.parametrize(
    ("labels", "expected", "unit"),
    [
        (["day 10", "day 2", "day -1"], [10, 2, -1], "numbers"),
        (["E8.5_rep1", "E9_rep1", "E10.25_rep1"], [8.5, 9, 10.25], "numbers"),
        (["2020-01-31", "2020-02-01", "2019-12-31"], [31, 32, 0], "days"),
        (["2020-01-01T12:00", "2020-01-02 00:00:00", "2020-01-01"], [0.5, 1, 0], "days"),
    ],
)
def test_labels_of_times_become_numbers(tmp_path, labels, expected, unit):
    text = "x,when\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels))
    measure, times = read_with_times(_write(tmp_path, "p.csv", text), "when")
    np.testing.assert_array_equal(times.value, expected)
    np.testing.assert_array_equal(measure.position[:, 0], [0, 1, 2])
    assert times.label == dict(zip(map(float, expected), labels, strict=True))
    assert unit in times.unit


def test_times_keep_their_digits_in_single_precision(tmp_path):
    path = _write(tmp_path, "p.csv", "x,when\n1,20200101\n2,1600000001.5\n")
    with jax.enable_x64(False):
        _, times = read_with_times(path, "when")
    np.testing.assert_array_equal(times.value, [20200101, 1600000001.5])
    assert times.label == {}


def test_ordered_categories_are_spaced_evenly_or_by_their_numbers():
    text = np.array(["late", "early", "late"])
    assert times_of(Labels(text, ("early", "middle", "late"))).value.tolist() == [1, 0, 1]
    text = np.array(["d1", "d9", "d4"])
    assert times_of(Labels(text, ("d1", "d4", "d9"))).value.tolist() == [1, 9, 4]
    assert times_of(Labels(text, ("d9", "d4", "d1"))).value.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "labels", [["early", "late"], ["a1", "b2"], ["x1 y2", "x2 y1"], ["2020-01-01", "day 2"]]
)
def test_times_without_an_order_are_refused(labels):
    with pytest.raises(ValueError, match="have no order"):
        times_of(np.array(labels))


def test_csv_of_one_column_is_points_on_the_line(tmp_path):
    measure = read_particles(_write(tmp_path, "p.csv", "1\n2\n"))
    np.testing.assert_array_equal(measure.position, [[1.0], [2.0]])


@pytest.mark.parametrize(
    "array", [POINTS, POINTS[:, 0], POINTS.astype(np.float32), np.arange(6).reshape(3, 2)]
)
def test_npy(tmp_path, array):
    path = tmp_path / "p.npy"
    np.save(path, array)
    np.testing.assert_array_equal(read_particles(path).position, array.reshape(3, -1))


@pytest.mark.parametrize("name", ["position", "positions", "x", "samples", "data", "whatever"])
@pytest.mark.parametrize("weighted", [False, True])
def test_npz_names(tmp_path, name, weighted):
    path = tmp_path / "p.npz"
    np.savez(path, **{name: POINTS}, **({"weight": WEIGHT} if weighted else {}))
    measure = read_particles(path)
    np.testing.assert_array_equal(measure.position, POINTS)
    np.testing.assert_allclose(measure.weight, WEIGHT if weighted else np.full(3, 1 / 3), rtol=1e-14)


def test_npz_prefers_the_name_position(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, other=np.zeros(7), data=np.zeros((2, 2)), position=POINTS)
    np.testing.assert_array_equal(read_particles(path).position, POINTS)


tables = hnp.arrays(np.float64, (4, 2), elements=st.floats(-1e300, 1e300))
heavy = hnp.arrays(np.float64, (4,), elements=st.one_of(st.just(0.0), st.floats(1e-300, 1e300))).filter(
    np.any
)


@settings(deadline=None, max_examples=30)
@given(points=tables, weight=heavy, kind=st.sampled_from(["csv", "tsv", "npz"]))
def test_round_trip_of_any_values(points, weight, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p.{kind}"
        if kind == "npz":
            np.savez(path, position=points, weight=weight)
        else:
            columns = np.column_stack([points, weight])
            path.write_text(_csv(["x", "y", "weight"], "," if kind == "csv" else "\t", columns))
        measure = read_particles(path)
    # jax flushes denormal numbers to zero on CPU; bits are compared where they survive.
    np.testing.assert_allclose(measure.position, points, rtol=0, atol=1e-300)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(measure.log_weight, np.log(weight), rtol=1e-14, atol=1e-14)


def _saved(folder, name, **arrays):
    path = Path(folder) / name
    if name.endswith(".npy"):
        np.save(path, arrays["position"])
    else:
        np.savez(path, **arrays)
    return path


def _cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


BAD = {
    "missing": lambda d: d / "nowhere.csv",
    "folder": lambda d: d,
    "empty csv": lambda d: _write(d, "bad.csv", ""),
    "empty npy": lambda d: _write(d, "bad.npy", b""),
    "blank csv": lambda d: _write(d, "bad.csv", "\n \n\n"),
    "header only": lambda d: _write(d, "bad.csv", "x,y\n"),
    "header only with log weights": lambda d: _write(d, "bad.csv", "x,log_weight\n"),
    "weight column only": lambda d: _write(d, "bad.csv", "weight\n1\n2\n"),
    "wrong ending": lambda d: _write(d, "bad.xlsx", "1,2\n"),
    "no ending": lambda d: _write(d, "bad", "1,2\n"),
    "not utf-8": lambda d: _write(d, "bad.csv", b"x,y\n1,\xff\xfe\n"),
    "utf-16 without a byte order mark": lambda d: _write(d, "bad.csv", "x,y\n1,2\n".encode("utf-16-le")),
    "underscores": lambda d: _write(d, "bad.csv", "x,y\n1_000,2\n"),
    "digits of another script": lambda d: _write(d, "bad.csv", "x,y\n\u0661,2\n"),
    "two columns of one name": lambda d: _write(d, "bad.csv", "x,y, x\n1,2,3\n"),
    "a column without a name": lambda d: _write(d, "bad.csv", ",x\n0.5,1\n1.5,2\n"),
    "commas that separate or mark decimals": lambda d: _write(d, "bad.csv", "1,5,2,25\n-3,1,4,50\n"),
    "commas that mark decimals or thousands": lambda d: _write(d, "bad.csv", "1,500;2,250\n3,100;4,500\n"),
    "commas that mark decimals below a header": lambda d: _write(d, "bad.csv", "x,y\n1,5,2,5\n"),
    "marks that do not fit": lambda d: _write(d, "bad.csv", "x;y\n1.5;2,5\n"),
    "nan": lambda d: _write(d, "bad.csv", "1,2\nnan,3\n"),
    "infinite": lambda d: _write(d, "bad.csv", "1,2\ninf,3\n"),
    "ragged long": lambda d: _write(d, "bad.csv", "1,2\n3,4,5\n"),
    "ragged short": lambda d: _write(d, "bad.csv", "x,y\n1,2\n3\n"),
    "text cell": lambda d: _write(d, "bad.csv", "x,y\n1,2\n3,four\n"),
    "empty cell": lambda d: _write(d, "bad.csv", "x,y\n1,2\n3,\n"),
    "negative weights": lambda d: _write(d, "bad.csv", "x,weight\n1,1\n2,-1\n"),
    "nan weights": lambda d: _write(d, "bad.csv", "x,weight\n1,1\n2,nan\n"),
    "all-zero weights": lambda d: _write(d, "bad.csv", "x,weight\n1,0\n2,0\n"),
    "nan log weights": lambda d: _write(d, "bad.csv", "x,log_weight\n1,0\n2,nan\n"),
    "infinite log weights": lambda d: _write(d, "bad.csv", "x,log_weight\n1,0\n2,inf\n"),
    "all-zero log weights": lambda d: _write(d, "bad.csv", "x,log_weight\n1,-inf\n2,-inf\n"),
    "unbalanced quote": lambda d: _write(d, "bad.csv", 'x,y\n1,"2\n' + "3,4\n" * 60_000),
    "truncated npy": lambda d: _cut(_saved(d, "bad.npy", position=np.ones((50, 2)))),
    "truncated npz": lambda d: _cut(_saved(d, "bad.npz", position=np.ones((50, 2)))),
    "text as npy": lambda d: _write(d, "bad.npy", "1,2\n"),
    "text as npz": lambda d: _write(d, "bad.npz", "1,2\n"),
    "npz as npy": lambda d: _saved(d, "bad.npz", position=POINTS).rename(d / "bad2.npy"),
    "npy as npz": lambda d: _saved(d, "bad.npy", position=POINTS).rename(d / "bad2.npz"),
    "pickled objects": lambda d: _saved(d, "bad.npy", position=np.array([{"a": 1}], dtype=object)),
    "three axes": lambda d: _saved(d, "bad.npy", position=np.ones((2, 2, 2))),
    "no points": lambda d: _saved(d, "bad.npy", position=np.ones((0, 2))),
    "complex": lambda d: _saved(d, "bad.npy", position=np.ones((2, 2)) * 1j),
    "nan in npy": lambda d: _saved(d, "bad.npy", position=np.array([[np.nan]])),
    "nameless npz": lambda d: _saved(d, "bad.npz", a=POINTS, b=POINTS),
    "empty npz": lambda d: _saved(d, "bad.npz"),
    "weights of another length": lambda d: _saved(d, "bad.npz", position=POINTS, weight=np.ones(2)),
    "weights of text": lambda d: _saved(d, "bad.npz", position=POINTS, weight=np.array(["a", "b", "c"])),
    "log weights of text": lambda d: _saved(
        d, "bad.npz", position=POINTS, log_weight=np.array(["a", "b", "c"])
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", BAD)
def test_every_bad_file_is_refused_with_its_name(tmp_path, kind):
    path = BAD[kind](tmp_path)
    with pytest.raises(ValueError, match=r".") as caught:
        read_particles(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: _write(d, "bad.csv", "x,y\n1,2\n"),
        lambda d: _write(d, "bad.csv", "1.5,2\n"),
        lambda d: _saved(d, "bad.npy", position=POINTS),
        lambda d: _saved(d, "bad.npz", position=POINTS),
    ],
)
def test_unknown_weight_column_is_refused(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(ValueError, match="mass") as caught:
        read_particles(path, weight="mass")
    assert str(path) in str(caught.value)


def test_the_row_of_a_bad_cell_is_named(tmp_path):
    with pytest.raises(ValueError, match="row 3.*four"):
        read_particles(_write(tmp_path, "p.csv", "x,y\n1,2\n3,four\n"))
    with pytest.raises(ValueError, match="row 2.*four"):
        read_particles(_write(tmp_path, "p.csv", "1,2\n3,four\n"))
