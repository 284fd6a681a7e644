"""The command keeps compiled programs for its next start, and leaves JAX's own settings alone."""

import subprocess
import sys

import pytest

TWO = "0,0\n1,0\n"


@pytest.fixture
def started(tmp_path, monkeypatch):
    """``() -> (exit code, errors, kept files)`` of a short command with a cache folder of its own."""
    (tmp_path / "two.csv").write_text(TWO)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def start():
        done = subprocess.run(
            [sys.executable, "-m", "wfr_flows", "distance", "two.csv", "two.csv", "--json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        kept = [path for path in (tmp_path / "cache").rglob("*") if path.name.endswith("-cache")]
        return done.returncode, done.stderr, kept

    return start


def test_programs_are_kept_and_found_again(started):
    code, _, kept = started()
    assert code == 0
    assert kept
    assert started() == (0, "", kept)


def test_another_folder_is_respected(started, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))
    code, _, kept = started()
    assert code == 0
    assert not kept


def test_without_a_place_to_keep_them_the_command_works(started, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    code, errors, _ = started()
    assert (code, errors) == (0, "")
