"""Settings every test shares: double precision inside tests, a compilation cache, eight virtual devices."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Read when jax is imported, by commands that tests start as well.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "wfr_flows" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

_DEVICES = "--xla_force_host_platform_device_count=8"
# Programs of tests are compiled for longer than they run.
_UNOPTIMISED = "--xla_backend_optimization_level=0"
# Without this, such programs would be slow to train.
_UNFUSED = "--xla_cpu_use_fusion_emitters=false"


def quick_flags():
    """Flags of XLA with which programs are quick to compile."""
    # The second is no API: XLA 0.10 knows it, later ones do not, and one that it does not know is fatal.
    known = (_UNOPTIMISED, _UNFUSED) if version("jaxlib").startswith("0.10.") else (_UNOPTIMISED,)
    return " ".join((_DEVICES, *known))


def pytest_configure(config):
    # Read when XLA starts, with the first array. Slow tests are about long runs, and `XLA_FLAGS=... pytest`
    # has the last word.
    quick = "not slow" in config.getoption("markexpr")
    os.environ.setdefault("XLA_FLAGS", quick_flags() if quick else _DEVICES)


def pytest_collection_finish(session):
    # What was imported stays: the collector need not look at it again and again.
    del session
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def double_precision():
    # A context, not a global setting: the doctests of the package run in this session and print float32.
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Every program takes memory maps, of which a process may have so many; few files share one."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)
