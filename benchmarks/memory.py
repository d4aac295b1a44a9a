"""Peak memory of single contenders, each in a process of its own."""

import importlib
import multiprocessing
import resource
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SIDES = ("ours", "baseline")
STEPS = 3
TOGETHER = 2
"""Processes at a time."""


def peaks(name: str, seed: int, quick: bool, sides: Sequence[str] = SIDES) -> list[float]:
    """MiB that the steps of each side need at most, beyond what a process holds when all is imported.

    sides: functions (setting, steps) of the benchmark `name`, or "function:argument" for a third argument.
    """
    ways = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
    if context.get_start_method() == "forkserver":  # imports once, then forks
        context.set_forkserver_preload(["torch", "lightning.fabric", "benchmarks.scene", f"benchmarks.{name}"])
    with ProcessPoolExecutor(TOGETHER, context, max_tasks_per_child=1) as pool:
        return list(pool.map(peak, [name] * len(sides), sides, [seed] * len(sides), [quick] * len(sides)))


def peak(name: str, side: str, seed: int, quick: bool) -> float:
    """MiB that the steps of one side need in this process, beyond what it held before."""
    import lightning.fabric  # noqa: F401 - imports are not what is measured
    import torch

    from benchmarks.scene import Setting

    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(quick, seed, Path(folder))
        if hasattr(module, "prepare"):
            module.prepare(setting)
        _forget_peak()
        before = _held()
        function, _, argument = side.partition(":")
        getattr(module, function)(setting, STEPS, *([argument] if argument else []))
        after = _most()
    return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else after - before) / 2**20


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _most() -> int:
    """The process's largest resident memory in bytes.

    Linux tells it of this process alone; what `getrusage` tells includes the parent before it started this one.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _held() -> int:
    return _status("VmRSS") or _most()


def _status(field: str) -> int:
    path = Path("/proc/self/status")
    if not path.is_file():
        return 0
    lines = [line for line in path.read_text().splitlines() if line.startswith(field)]
    return int(lines[0].split()[1]) * 1024 if lines else 0
