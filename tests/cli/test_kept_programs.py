"""The command keeps compiled programs for its next start, and leaves JAX's own settings alone."""

import subprocess
import sys

import jax
import pytest
from helpers import refusal

from wfr_flows.cli import main

TWO = "0.0,0\n1,0\n"


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


@pytest.mark.slow
def test_programs_are_kept_and_found_again(started):
    code, _, kept = started()
    assert code == 0
    assert kept
    assert started() == (0, "", kept)


LEAST_TIME, MOST_BYTES = "jax_persistent_cache_min_compile_time_secs", "jax_compilation_cache_max_size"


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """``(**settings) -> settings afterwards`` of a command that ends at its input, in this process."""
    names = {LEAST_TIME: 1.0, MOST_BYTES: -1, "jax_compilation_cache_dir": None}
    before = {name: jax.config.values[name] for name in names}
    for name in names:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def start(**settings):
        for name, value in (names | settings).items():
            jax.config.update(name, value)
        assert main(["distance", "nowhere.csv", "nowhere.csv"]) == 2
        return {name: jax.config.values[name] for name in (LEAST_TIME, MOST_BYTES)}

    yield start
    for name, value in before.items():
        jax.config.update(name, value)


def folder():
    return jax.config.values["jax_compilation_cache_dir"]


def test_without_a_place_to_keep_them_the_command_works(refused, tmp_path, capsys):
    (tmp_path / "wfr_flows").write_text("not a folder")
    assert refused() == {LEAST_TIME: 1.0, MOST_BYTES: -1}
    assert folder() is None
    assert "nowhere.csv" in refusal(capsys)


def test_another_folder_is_respected(refused, tmp_path):
    # Where JAX itself puts what the environment says.
    elsewhere = str(tmp_path / "elsewhere")
    refused(jax_compilation_cache_dir=elsewhere)
    assert folder() == elsewhere
    assert not (tmp_path / "wfr_flows").exists()


def test_all_programs_are_kept_up_to_a_size(refused, tmp_path):
    assert refused() == {LEAST_TIME: 0.0, MOST_BYTES: 2**29}
    assert folder().startswith(str(tmp_path))


def test_what_the_user_has_set_in_jax_stays(refused):
    assert refused(**{LEAST_TIME: 5.0}) == {LEAST_TIME: 5.0, MOST_BYTES: 2**29}
    assert refused(**{MOST_BYTES: 1000}) == {LEAST_TIME: 0.0, MOST_BYTES: 1000}


def test_what_the_environment_says_stays_even_where_it_says_the_usual(refused, monkeypatch):
    monkeypatch.setenv(LEAST_TIME.upper(), "1.0")
    monkeypatch.setenv(MOST_BYTES.upper(), "-1")
    assert refused() == {LEAST_TIME: 1.0, MOST_BYTES: -1}
