"""Checkpoints of a training: one safetensors file that cannot execute code, written atomically, with a predecessor.

Everything that is no tensor (positions, learning history) is JSON in the file's metadata. `latest.safetensors` is the
newest complete checkpoint; the one before it stays as `previous.safetensors`, to fall back on.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch

from preceptor.errors import StorageError
from preceptor.storage import hash_tensors, read_tensors, write_tensors

LATEST, PREVIOUS = "latest.safetensors", "previous.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors and plain values; the older one becomes the previous."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _flatten(state, tensors)
    latest, fresh = folder / LATEST, folder / "fresh.safetensors"
    write_tensors(fresh, tensors, {"state": json.dumps(plain), "hash": hash_tensors(tensors)})
    if latest.exists():
        os.replace(latest, folder / PREVIOUS)
    os.replace(fresh, latest)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest checkpoint that is whole (None if there was never one) and a message about any that is damaged.

    Raises StorageError if there are checkpoints, but none is whole.
    """
    damaged: list[str] = []
    for name in ("fresh.safetensors", LATEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            tensors, metadata = read_tensors(path)
            if hash_tensors(tensors) != metadata.get("hash"):
                raise StorageError("the checkpoint's checksum is wrong", where=path)
            state = _unflatten(json.loads(metadata["state"]), tensors)
        except (StorageError, KeyError, ValueError) as error:
            damaged.append(f"{name}: {getattr(error, 'what', error)}")
            continue
        note = f"damaged checkpoint passed over ({'; '.join(damaged)}); going on from {name}" if damaged else ""
        return state, note
    if damaged:
        raise StorageError(
            "no checkpoint of this arm is whole",
            where=folder,
            offenders=damaged,
            remedy="delete this folder to train the arm from its beginning",
        )
    return None, ""


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load an optimiser's state, each tensor laid out in memory as its parameter is.

    A checkpoint keeps no memory format, and the fused AdamW pairs parameter and state by raw memory, unchecked.
    """
    optimizer.load_state_dict(state)
    for parameter, held in optimizer.state.items():
        for name, value in held.items():
            if value.shape == parameter.shape:
                held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(item, tensors) for item in value]
    return value


def _unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _unflatten(item, tensors) for key, item in value["dict"]}
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    return value
