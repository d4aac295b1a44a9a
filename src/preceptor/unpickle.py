"""The one place that opens a pickled checkpoint: a process of its own, with weights-only loading and bounded resources.

Run by `preceptor.weights.import_weights` as `python -m preceptor.unpickle CHECKPOINT OUT`. It writes the tensors of
the checkpoint's state dict to OUT as safetensors, and one line of JSON to its output: how many entries were left out,
or why the file was refused.
"""

import contextlib
import json
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HARMLESS = ("AttributeDict", "CfgNode", "Namespace")
"""Kinds of settings that training scripts store beside the weights. They become inert dictionaries."""

SPARE_BYTES = 2 * 2**30
CPU_SECONDS = 900


class _Settings(dict):
    """Stands in for a settings object, so that its own code is never imported or run."""

    def __setstate__(self, state: object) -> None:
        """Forget what was stored; only tensors are wanted."""


def main(checkpoint: str, out: str) -> int:
    """Convert, and print the outcome as JSON. Returns the exit code: 0, or 3 for a refused file."""
    import torch

    from preceptor.storage import write_tensors

    _bound(Path(checkpoint).stat().st_size)
    try:
        content = _load(checkpoint)
        tensors, left_out = _state(content)
        claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if claimed > 4 * Path(checkpoint).stat().st_size + 2**20:
            raise ValueError(f"its tensors claim {claimed} bytes, far more than the file holds")
        if not all(type(tensor) is torch.Tensor and tensor.layout is torch.strided for tensor in tensors.values()):
            raise ValueError("it holds tensors that are not plain")
        write_tensors(out, tensors)
    except Exception as error:  # whatever a hostile file provokes is a refusal
        print(json.dumps(_outcome(error)))  # noqa: T201
        return 3
    print(json.dumps({"left_out": left_out}))  # noqa: T201
    return 0


def _outcome(error: Exception) -> dict[str, str]:
    """Why the file was refused, without torch's advice to trust it; `named`: what it wanted to import or call."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)|function=([\w.]+)|[Cc]lass ([\w.]+\.[\w.]+)", text)
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(Unsupported|Trying|Can only|Only|String is)[^\n]{0,200}", text)
        text = found.group(0) if found else "no pickle of tensors and plain values"
    outcome = {"refused": f"{type(error).__name__}: {text}"[:300]}
    if named and isinstance(error, pickle.UnpicklingError):
        outcome["named"] = next(group for group in named.groups() if group)
    return outcome


def _load(checkpoint: str) -> Any:
    import torch

    with contextlib.suppress(Exception):  # the older format names its globals only while it is read
        for name in torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint):
            if name.rsplit(".", 1)[-1] in HARMLESS:
                torch.serialization.add_safe_globals([(_Settings, name)])
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def _state(content: Any) -> tuple[dict[str, Any], int]:
    """(tensors by name, count of other entries) of a state dict, or of a checkpoint that has one in `state_dict`."""
    import torch

    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds no state dict, but a {type(content).__name__}")
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError("its state dict holds no tensors")
    return tensors, len(content) - len(tensors)


def _bound(size: int) -> None:
    """Limit this process's memory, time, written bytes and children, where the system can."""
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    memory = 0
    with contextlib.suppress(OSError, ValueError):
        memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {"RLIMIT_CPU": CPU_SECONDS, "RLIMIT_FSIZE": 5 * size + 2**24, "RLIMIT_NPROC": 0}
    if memory:
        limits["RLIMIT_AS"] = memory + 6 * size + SPARE_BYTES
    for name, limit in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (limit, limit))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
