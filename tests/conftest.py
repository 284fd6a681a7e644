"""Settings every test shares: double precision inside tests, a compilation cache, eight virtual devices."""

import os
from pathlib import Path

# Both are read when jax starts, so they come before its import.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "wfr_flows" / "jax"))
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import pytest

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(autouse=True)
def double_precision():
    # A context, not a global setting: the doctests of the package run in this session and print float32.
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
