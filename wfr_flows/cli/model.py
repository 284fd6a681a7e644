"""Saving a learned model into an output directory, and opening it again."""

import contextlib
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows import geodesics, measures, potentials, training
from wfr_flows.cli import pipeline
from wfr_flows.cli.directory import read_json
from wfr_flows.cli.files import write_atomically
from wfr_flows.cli.options import MOST_STEPS, MOST_UNITS, InputError
from wfr_flows.cli.settings import Settings, finished, made_by_us
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics import Generator, Learned
from wfr_flows.measures import Particles
from wfr_flows.typing import Array, Float, Key

FILES = ("model.json", "checkpoint")
"""What `save` writes."""

_MADE_BY = "wfr-flows posterior"
_NORMALISER_PARTICLES = 32768
_BLOCK = 65536
# The largest that is opened: beyond it the covariance alone takes gigabytes.
_MOST_DIMENSIONS = 2**14


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a model is built from before its parameters are put in."""

    dimension: int
    width: int
    alpha: float
    num_steps: int
    float64: bool

    def generator(self, **options) -> Generator:
        """The generator of this shape; ``options`` are those of the training."""
        potential = potentials.resnet(self.dimension, width=self.width)
        return geodesics.generator(potential, Geometry(self.alpha), num_steps=self.num_steps, **options)

    def untrained(self) -> Generator:
        """The generator that uses what was learned: always the same one, whose programs are found again."""
        return _untrained(self)


@cache
def _untrained(shape: Shape) -> Generator:
    return shape.generator()


class Model(NamedTuple):
    """A learned measure: what was learned, and the functions that use it."""

    dimension: int
    generator: Generator
    learned: Learned


def sample(model: Model, key: Key, size: int) -> Particles:
    """Weighted samples of mass 1, in blocks so that memory does not grow with their number."""
    block = min(size, _BLOCK)
    return _drawn(model.generator, size, block, jax.random.split(key, -(-size // block)), model.learned)


# One program for all calls with a generator, as the next one.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(generator: Generator, size: int, block: int, keys: Key, learned: Learned) -> Particles:
    # Every block estimates the mean of the potential by itself, and well: it is large.
    blocks = jax.lax.map(lambda key: generator.sample(key, learned, block), keys)
    position = blocks.position.reshape(-1, blocks.position.shape[-1])[:size]
    return Particles(position, blocks.log_weight.reshape(-1)[:size]).normalise()


def log_density(model: Model, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Normalised log-density at points, in blocks as in `sample`."""
    return _evaluated(model.generator, min(x.shape[0], _BLOCK), x, model.learned)


@partial(jax.jit, static_argnums=(0, 1))
def _evaluated(
    generator: Generator, block: int, x: Float[Array, "n d"], learned: Learned
) -> Float[Array, " n"]:
    size, dim = x.shape
    x = jnp.pad(x, ((0, -size % block), (0, 0)), mode="edge").reshape(-1, block, dim)
    return jax.lax.map(lambda part: generator.log_density(learned, part), x).reshape(-1)[:size]


def mark(out: Path) -> None:
    """Note that the directory is for a model, unless it holds one already."""
    if not (out / "model.json").exists():
        write_atomically(out / "model.json", json.dumps({"made_by": _MADE_BY, "run": None}).encode())


def is_marked(out: Path) -> bool:
    """Whether `mark` or `save` wrote the ``model.json`` there."""
    return (read_json(out / "model.json") or {}).get("made_by") == _MADE_BY


def save(out: Path, shape: Shape, learned: Learned) -> str:
    """Save a model in place of the last one, which stays usable until this one is complete.

    Returns:
      An identifier of what was saved.
    """
    before = (read_json(out / "model.json") or {}).get("step")
    step = before + 1 if isinstance(before, int) else 1
    # A run killed between checkpoint and model.json leaves a step that nothing names.
    for stray in (out / "checkpoint").glob("*"):
        if stray.is_dir() and stray.name != str(before):
            shutil.rmtree(stray)
    training.save(out / "checkpoint", step, learned)
    run = str(uuid.uuid4())
    saved = {
        "made_by": _MADE_BY,
        "run": run,
        "step": step,
        **dataclasses.asdict(shape),
        "alpha": str(shape.alpha),
    }
    write_atomically(out / "model.json", json.dumps(saved, indent=2, allow_nan=False).encode())
    return run


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Model]:
    """The model in an output directory of ``posterior`` or ``geodesic``; the body runs in its precision."""
    if not directory.is_dir():
        raise InputError(
            f"{directory} is no directory; give the output directory of wfr-flows posterior or geodesic."
        )
    saved = read_json(directory / "model.json", "train again")
    settings = read_json(directory / "settings.json", "train again")
    if saved is not None:
        shape, restore = _of_posterior(directory, saved)
    elif settings is not None:
        shape, restore = _of_geodesic(directory, settings)
    else:
        raise InputError(
            f"{directory} holds no model; give the output directory of wfr-flows posterior or geodesic."
        )
    with jax.enable_x64(shape.float64):
        if not (directory / "checkpoint").is_dir():
            raise InputError(f"{directory} has lost its checkpoint; train again.")
        try:
            learned = restore()
        except ValueError as error:
            raise InputError(
                f"the checkpoint in {directory} is damaged or of another version; train again."
            ) from error
        yield Model(shape.dimension, shape.untrained(), jax.tree.map(jnp.asarray, learned))


def _of_posterior(directory: Path, saved: dict):
    if saved.get("made_by") != _MADE_BY:
        raise InputError(f"{directory / 'model.json'} is of another program; give the output of posterior.")
    if not saved.get("run") or type(saved.get("step")) is not int or not 0 < saved["step"] < 2**31:
        raise InputError(f"{directory} holds no finished run; train again.")
    shape = _shape(directory / "model.json", saved)

    def restore() -> Learned:
        potential = potentials.resnet(shape.dimension, width=shape.width)
        # Shapes alone, so that a file which names absurd ones is refused before they take memory.
        params, white = (
            jax.eval_shape(make)
            for make in (lambda: potential.init(jax.random.key(0)), lambda: _standard(shape.dimension))
        )
        log_normaliser = jax.eval_shape(lambda: jnp.zeros(()))
        start = Learned(params, white, log_normaliser)  # pyright: ignore[reportArgumentType]
        return training.restore(directory / "checkpoint", start, saved["step"])

    return shape, restore


def _of_geodesic(directory: Path, saved: dict):
    if not finished(directory, saved):
        raise InputError(f"{directory} holds no finished run; train again.")
    if saved.get("target") is not None:
        raise InputError(
            f"{directory} leads to the samples in {saved['target']}, which cannot be drawn anew; give a"
            " geodesic to N(0, I), learned without --target."
        )
    summary = read_json(directory / "summary.json", "train again") or {}
    shape = _shape(directory / "settings.json", {**saved, "dimension": summary.get("dimension")})
    steps = [saved.get(name) for name in ("matching_steps", "refinement_steps")]
    if not made_by_us(saved) or any(type(num) is not int or not 0 <= num < 2**31 for num in steps):
        raise _damaged(directory / "settings.json")
    settings = Settings(**{field.name: saved[field.name] for field in dataclasses.fields(Settings)})

    def restore() -> Learned:
        params = pipeline.trained(directory / "checkpoint", settings, shape.dimension)
        potential = potentials.resnet(shape.dimension, width=shape.width)
        normal = measures.standard_normal(shape.dimension).sample(jax.random.key(0), _NORMALISER_PARTICLES)
        total = jax.jit(geodesics.log_normaliser, static_argnums=0, static_argnames="num_steps")(
            potential, Geometry(shape.alpha), params, normal, num_steps=2 * shape.num_steps
        )
        return Learned(params, _standard(shape.dimension), total)

    return shape, restore


def _shape(path: Path, saved: dict) -> Shape:
    """The part of what was saved that builds the model, checked."""
    counts = [saved.get(name) for name in ("dimension", "width", "num_steps")]
    try:
        alpha = float(saved["alpha"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(path) from error
    most = (_MOST_DIMENSIONS, MOST_UNITS, MOST_STEPS)
    whole = all(type(value) is int and 0 < value <= top for value, top in zip(counts, most, strict=True))
    if not (whole and alpha > 0 and isinstance(saved.get("float64"), bool)):
        raise _damaged(path)
    return Shape(saved["dimension"], saved["width"], alpha, saved["num_steps"], saved["float64"])


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged or of another version; train again.")


def _standard(dim: int) -> measures.Whitening:
    return measures.whitening_by(jnp.zeros(dim), jnp.eye(dim))
