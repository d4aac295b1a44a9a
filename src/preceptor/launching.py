"""Independent runs over the processes and devices of this machine, or over a cluster through submitit.

Every run is a process of its own that writes to its own folder: one that fails, or is killed, harms no other. What
stands is not redone, so the same call goes on where a stopped one left off.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from preceptor.errors import Interrupted, RecipeError
from preceptor.extras import require_extra
from preceptor.progress import Progress
from preceptor.storage import hash_json, read_json, write_json

State = Literal["done", "failed", "waiting"]
SECONDS = 0.2


@dataclass(frozen=True)
class Task:
    """A command, the folder it fills, and the names of the tasks that must be done before. key: what it depends on."""

    name: str
    command: tuple[str, ...]
    folder: Path
    needs: tuple[str, ...] = ()
    key: Any = None


@dataclass
class Ended:
    """How a task ended. reason: the error that its log ends with, or what it still waits for."""

    state: State
    reason: str = ""


class Job(Protocol):
    """A command that was started somewhere."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def stop(self) -> None:
        """Ask it to save and end."""


class Launcher(Protocol):
    """Where commands run; `slots` of them at a time."""

    slots: int

    def start(self, task: Task, slot: int) -> Job:
        """Start a task; its output goes to `log.txt` in its folder."""


class Processes:
    """Processes of this machine. devices: CUDA devices by number, dealt to the slots in turn; none for the CPU."""

    def __init__(self, slots: int = 1, devices: Sequence[str] = ()) -> None:
        self.slots, self.devices = slots, tuple(devices)
        self.threads = max(1, (os.cpu_count() or 1) // slots)

    def start(self, task: Task, slot: int) -> Job:
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        task.folder.mkdir(parents=True, exist_ok=True)
        with open(task.folder / "log.txt", "ab") as log:
            started = subprocess.Popen(
                task.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        return _Process(started)


class _Process:
    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        """The first signal of a preempted machine: the training saves and ends (fault 15)."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Submitit:
    """Jobs of a cluster through submitit: cluster "slurm", or "local" for its executor on this machine.

    parameters: of submitit's AutoExecutor, such as slurm_partition, timeout_min, gpus_per_node, cpus_per_task. The
    folders must be on a disk that all machines share.
    """

    def __init__(
        self, folder: Path, cluster: str, slots: int = 64, parameters: Mapping[str, Any] | None = None
    ) -> None:
        require_extra("submitit", "cluster", "starting jobs on a cluster")
        import submitit

        self.slots = slots
        try:
            self.executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
            self.executor.update_parameters(**(parameters or {}))
        except (RuntimeError, ValueError, NameError) as error:
            raise RecipeError(
                "submitit cannot start jobs here",
                where=f"launcher {cluster}",
                found=str(error),
                remedy="run on a machine that reaches the cluster's scheduler, or use --launcher processes",
            ) from error

    def start(self, task: Task, slot: int) -> Job:
        task.folder.mkdir(parents=True, exist_ok=True)
        log = task.folder / "log.txt"
        return _Submitted(self.executor.submit(_logged, list(task.command), str(log)))


def _logged(command: Sequence[str], log: str) -> int:
    """Run a command on another machine, its output appended to `log`; gives the exit code."""
    with open(log, "ab") as file:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False).returncode


class _Submitted:
    def __init__(self, job: Any) -> None:
        self.job = job

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        return self.job.result() if error is None else 1

    def stop(self) -> None:
        self.job.cancel()


@dataclass
class _Board:
    """Which tasks wait, run and ended."""

    waiting: list[Task]
    running: dict[int, tuple[Task, Job]] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)


def launch(tasks: Sequence[Task], launcher: Launcher, progress: Progress) -> dict[str, Ended]:
    """Run the tasks, each after those it needs, and tell how each ended; tasks that stand are not run again.

    A task whose needs failed waits; the same call tries both again. Raises Interrupted after a keyboard interrupt or
    SIGTERM, when the running tasks have saved.
    """
    board = _Board([task for task in tasks if not _stands(task)])
    board.ended = {task.name: Ended("done") for task in tasks if _stands(task)}
    progress.start("runs", len(tasks), len(board.ended))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while board.waiting or board.running:
            _start_ready(board, launcher, progress)
            _collect(board, progress)
            if board.running:
                time.sleep(SECONDS)
    except KeyboardInterrupt:
        for _, job in board.running.values():
            job.stop()
        raise Interrupted("compare") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    progress.finish()
    return {task.name: board.ended[task.name] for task in tasks}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _start_ready(board: _Board, launcher: Launcher, progress: Progress) -> None:
    for task in list(board.waiting):
        states = [board.ended[name].state for name in task.needs if name in board.ended]
        if any(state != "done" for state in states):
            lacking = [name for name in task.needs if name in board.ended and board.ended[name].state != "done"]
            board.ended[task.name] = Ended("waiting", f"for {', '.join(lacking)}")
            board.waiting.remove(task)
            progress.advance()
        elif len(states) == len(task.needs) and len(board.running) < launcher.slots:
            slot = next(number for number in range(launcher.slots) if number not in board.running)
            board.running[slot] = task, launcher.start(task, slot)
            board.waiting.remove(task)
            progress.note(f"{task.name}: started")


def _collect(board: _Board, progress: Progress) -> None:
    for slot, (task, job) in list(board.running.items()):
        code = job.poll()
        if code is None:
            continue
        del board.running[slot]
        if code == 0:
            write_json(task.folder / "stands.json", {"key": hash_json(task.key)})
            board.ended[task.name] = Ended("done")
        else:
            board.ended[task.name] = Ended("failed", last_error(task.folder / "log.txt", code))
        where = "" if code == 0 else f", see {task.folder / 'log.txt'}"
        progress.note(f"{task.name}: {board.ended[task.name].state}{where}")
        progress.advance()


def _stands(task: Task) -> bool:
    path = task.folder / "stands.json"
    return path.is_file() and read_json(path).get("key") == hash_json(task.key)


def last_error(log: Path, code: int) -> str:
    """The first line of the last error in a log, or how the process ended."""
    killed = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return killed
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if told and code >= 0:
        return told[-1]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{killed}: {last}" if last and code >= 0 else killed


def preceptor_command(*arguments: str) -> tuple[str, ...]:
    """The command line of this very installation."""
    return (sys.executable, "-m", "preceptor.cli", *arguments)
