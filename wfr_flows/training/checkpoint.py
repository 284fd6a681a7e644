"""Saving and restoring trees with orbax: every call to it lives here."""

from pathlib import Path

import jax
import numpy as np

from wfr_flows.typing import PyTree


class CheckpointError(ValueError):
    """A checkpoint that is not there, damaged, or of something else."""


def save(directory: str | Path, step: int, tree: PyTree) -> None:
    """Save a tree as checkpoint ``step``; earlier ones but the last are deleted once it is complete.

    A process killed while saving leaves the earlier checkpoint intact. Arrays are saved as numpy arrays,
    which carry no device: another machine can restore them.
    """
    tree = jax.tree.map(np.asarray, tree)
    with _manager(directory) as manager:
        manager.save(step, args=_orbax().args.StandardSave(tree))  # pyright: ignore[reportCallIssue]
        manager.wait_until_finished()


def latest_step(directory: str | Path) -> int | None:
    """The step of the newest complete checkpoint in a directory, None if there is none."""
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        return manager.latest_step()


def restore(directory: str | Path, like: PyTree, step: int | None = None) -> PyTree:
    """Restore a checkpoint, the newest by default, exactly as it was saved.

    Args:
      directory: where `save` put it.
      like: a tree of the same structure, shapes and dtypes.
      step: which one.

    Raises:
      CheckpointError: no checkpoint there, or one that does not fit ``like``.
    """
    step = latest_step(directory) if step is None else step
    if step is None:
        raise CheckpointError(f"{directory} holds no checkpoint; train first.")
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    with _manager(directory) as manager:
        try:
            found = manager.restore(step, args=_orbax().args.StandardRestore(abstract))  # pyright: ignore
            # Orbax hands over arrays of other shapes as they are.
            if jax.tree.map(np.shape, found) != jax.tree.map(np.shape, abstract):
                raise ValueError("arrays of other shapes")
            return found
        except Exception as error:  # orbax raises many kinds for a damaged or foreign checkpoint
            raise CheckpointError(
                f"the checkpoint in {directory} is damaged or of another model; start anew ({error})."
            ) from error


def _orbax():
    import orbax.checkpoint  # noqa: PLC0415  slow to import, and only needed here

    return orbax.checkpoint


def _manager(directory: str | Path):
    orbax = _orbax()
    options = orbax.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
    return orbax.CheckpointManager(Path(directory).absolute(), options=options)
