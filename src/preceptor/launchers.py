"""Where the runs of a matrix are started: processes of this machine, or jobs of a cluster through submitit.

As a program (`python -m preceptor.launchers PARENT COMMAND ...`) this file becomes COMMAND, which the system then asks
to end when the process PARENT does, however that ends.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.errors import RecipeError
from preceptor.extras import require_extra
from preceptor.launching import LOG, SECONDS, Job, Task

STOP = "stop"
"""Name of the file beside a log that asks a job to save and end, wherever it runs."""
MINUTES = 24 * 60
"""Time limit of a job on a cluster where none is given; a job that reaches it is queued again and goes on."""


class Processes:
    """Processes of this machine. devices: CUDA devices by number, dealt to the slots in turn; none for the CPU."""

    def __init__(self, slots: int = 1, devices: Sequence[str] = ()) -> None:
        self.slots, self.devices = slots, tuple(devices)
        self.threads = max(1, _cores() // slots)

    def start(self, task: Task, slot: int) -> Job:
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        return _Process(_popen(task.command, task.folder / LOG, environment))


def _cores() -> int:
    """The processors that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _popen(command: Sequence[str], log: Path | str, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """The command in a session of its own, so that a Ctrl-C in the terminal reaches only who started it."""
    leashed = (sys.executable, "-m", "preceptor.launchers", str(os.getpid()), *command)
    with open(log, "ab") as file:
        return subprocess.Popen(
            leashed, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


class _Process:
    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        """The first signal of a preempted machine: the training saves and ends (fault 15)."""
        self.process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Submitit:
    """Jobs of a cluster through submitit: cluster "slurm", or "local" for its executor on this machine.

    parameters: of submitit's AutoExecutor, such as slurm_partition, timeout_min, gpus_per_node, cpus_per_task. The
    folders must be on a disk that all machines share. Raises RecipeError where jobs cannot be started so.
    """

    def __init__(
        self, folder: Path, cluster: str, slots: int = 64, parameters: Mapping[str, Any] | None = None
    ) -> None:
        require_extra("submitit", "cluster", "starting jobs on a cluster")
        import submitit

        self.slots, self.cluster = slots, cluster
        try:
            self.executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
            self.executor.update_parameters(**{"timeout_min": MINUTES, "name": "preceptor", **(parameters or {})})
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise self._refusal(error) from error

    def start(self, task: Task, slot: int) -> Job:
        log = task.folder / LOG
        log.with_name(STOP).unlink(missing_ok=True)
        try:
            return _Submitted(self.executor.submit(Logged(task.command, str(log))), log)
        except RuntimeError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> RecipeError:
        return RecipeError(
            "submitit cannot start jobs here",
            where=f"launcher {self.cluster}",
            found=str(error),
            remedy="run on a machine that reaches the cluster's scheduler and mend the --cluster options, or use "
            "--launcher processes",
        )


class Logged:
    """A command on another machine, its output appended to `log`; the call gives its exit code.

    A job that is preempted or reaches its time limit lets the command save, and is queued again.
    """

    def __init__(self, command: Sequence[str], log: str) -> None:
        self.command, self.log = tuple(command), log

    def __call__(self) -> int:
        self.process = _popen(self.command, self.log)
        stop, asked = Path(self.log).with_name(STOP), False
        try:
            while (code := self.process.poll()) is None:
                if not asked and stop.exists():
                    asked = True
                    self.process.terminate()
                time.sleep(SECONDS)
        except BaseException:  # a cancelled job: the command saves on its own
            self.process.terminate()
            raise
        return code

    def checkpoint(self) -> Any:
        """What submitit calls before it queues the job again."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        while self.process.poll() is None:
            time.sleep(SECONDS)
        return DelayedSubmission(Logged(self.command, self.log))


class _Submitted:
    def __init__(self, job: Any, log: Path) -> None:
        self.job, self.log = job, log

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        if error is None:
            return int(self.job.result())
        with open(self.log, "a", encoding="utf-8") as log:
            told = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            log.write(f"error: job of the cluster: {' '.join(told[:2])}\n")
        return 1

    def stop(self) -> None:
        """By a file, since a scheduler's signal reaches the job and not surely the command, and soon kills both."""
        self.log.with_name(STOP).touch()
        if self.job.state.upper() != "RUNNING":
            self.job.cancel()

    def kill(self) -> None:
        self.job.cancel()


def become(parent: int, command: Sequence[str]) -> None:
    """Become `command`, which gets SIGTERM when its parent process ends: no run is left without who started it.

    Where the system has no such signal (only Linux has), a parent that is killed leaves its children to their end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of <linux/prctl.h>; it outlasts execv
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
