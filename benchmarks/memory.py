"""Peak memory of one contender, in a process of its own: `python -m benchmarks.memory NAME ours|baseline`."""

import importlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIDES = ("ours", "baseline")
STEPS = 3


def peaks(name: str, seed: int, quick: bool) -> tuple[float, float]:
    """MiB that the steps of ours and of the baseline need at most, beyond what a process holds when all is imported."""
    commands = [[sys.executable, "-m", "benchmarks.memory", name, side, str(seed), str(int(quick))] for side in SIDES]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    printed = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    ours, baseline = (float(text.splitlines()[-1]) / 2**20 for text in printed)
    return ours, baseline


def main() -> None:
    """Take the steps and print the bytes."""
    import lightning.fabric  # noqa: F401 - imports are not what is measured
    import torch

    from benchmarks.scene import Setting

    name, side, seed, quick = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(bool(int(quick)), int(seed), Path(folder))
        if hasattr(module, "prepare"):
            module.prepare(setting)
        _forget_peak()
        before = _held()
        getattr(module, side)(setting, STEPS)
        after = _most()
    print(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else after - before)


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


if __name__ == "__main__":
    main()
