"""Saving and restoring trees with orbax: every call to it lives here."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.numerics import combine, is_array, is_key, partition
from wfr_flows.typing import PyTree


class CheckpointError(ValueError):
    """A checkpoint that is not there, damaged, or of something else."""


def save(directory: str | Path, step: int, tree: PyTree) -> None:
    """Save a tree as checkpoint ``step``; earlier ones but the last are deleted once it is complete.

    A process killed while saving leaves the earlier checkpoint intact. Arrays are saved as numpy arrays,
    which carry no device: another machine can restore them. Typed keys are saved as their data. Leaves that
    are no arrays, such as functions, are not saved: `restore` takes them from the tree it is shown.
    """
    tree = jax.tree.map(_to_host, partition(tree)[0])
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
      like: a tree of the same structure, shapes and dtypes, of arrays or `jax.ShapeDtypeStruct`.
      step: which one.

    Raises:
      CheckpointError: no checkpoint there, or one that does not fit ``like``.
    """
    step = latest_step(directory) if step is None else step
    if step is None:
        raise CheckpointError(f"{directory} holds no checkpoint; train first.")
    described, rest = partition(like, _has_shape)
    abstract = jax.tree.map(_stored, described)
    with _manager(directory) as manager:
        try:
            found = manager.restore(step, args=_orbax().args.StandardRestore(abstract))  # pyright: ignore
            # Orbax hands over arrays of other shapes as they are.
            if _shapes(found) != _shapes(abstract):
                raise ValueError("arrays of other shapes")
            return combine(jax.tree.map(_from_host, found, described), rest)
        except Exception as error:  # orbax raises many kinds for a damaged or foreign checkpoint
            raise CheckpointError(
                f"the checkpoint in {directory} is damaged or of another model; start anew ({error})."
            ) from error


def _to_host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _from_host(found: Any, like: Any) -> Any:
    if not is_key(like):
        return found
    # Keys are of the kind of those shown, which may be known by their dtype alone.
    kind = jax.random.key_impl(jnp.zeros((), like.dtype))
    return jax.random.wrap_key_data(jnp.asarray(found), impl=kind)


def _has_shape(leaf: Any) -> bool:
    return is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _stored(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what is saved of a leaf."""
    like = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return (
        jax.eval_shape(jax.random.key_data, leaf)
        if is_key(leaf)
        else jax.ShapeDtypeStruct(like.shape, like.dtype)
    )


def _shapes(tree: PyTree) -> tuple[list[tuple[int, ...]], Any]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(tree)], jax.tree.structure(tree)


def _orbax():
    import orbax.checkpoint  # noqa: PLC0415  slow to import, and only needed here

    return orbax.checkpoint


def _manager(directory: str | Path):
    orbax = _orbax()
    options = orbax.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
    return orbax.CheckpointManager(Path(directory).absolute(), options=options)
