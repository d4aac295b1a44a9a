"""Independent runs, each in a process of its own: those that stand are left alone, and those that fail harm no other.

What stands is not redone, so the same call goes on where a stopped one left off. Where the processes run is the
launcher's matter (`launchers.py`).
"""

import datetime
import graphlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from preceptor.errors import Interrupted, StorageError
from preceptor.progress import Progress
from preceptor.storage import hash_json, read_json, write_json

State = Literal["done", "failed", "waiting"]
SECONDS = 0.2
"""Between two looks at the running processes."""
LOG = "log.txt"
START = "=== "
"""How the line begins that a log has at the start of every attempt."""


@dataclass(frozen=True)
class Task:
    """A command, the folder it fills, and the names of the tasks that must be done before. key: what it depends on.

    leaves: files that it leaves below its folder; without any of them it does not stand.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    needs: tuple[str, ...] = ()
    key: Any = None
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a task ended. reason: the error that its log ends with, or what it still waits for."""

    state: State
    reason: str = ""


class Job(Protocol):
    """A command that was started somewhere."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def stop(self) -> None:
        """Ask it to save and end, without waiting for that."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """Where commands run; `slots` of them at a time."""

    slots: int

    def start(self, task: Task, slot: int) -> Job:
        """Start a task in its folder, which exists; its output is appended to `log.txt` there."""


@dataclass
class _Board:
    """Which tasks wait, run and ended."""

    waiting: list[Task]
    ended: dict[str, Ended]
    running: dict[int, tuple[Task, Job]] = field(default_factory=dict)


def launch(tasks: Sequence[Task], launcher: Launcher, progress: Progress) -> dict[str, Ended]:
    """Run the tasks, each after those it needs, and tell how each ended; tasks that stand are not run again.

    A task whose needs failed waits; the same call tries both again. SIGTERM and Ctrl-C ask the running tasks to save,
    wait for them, and raise Interrupted or KeyboardInterrupt; a second one kills them. No task outlives this call.
    Raises ValueError, before anything runs, for tasks that could never start.
    """
    _require_startable(tasks)
    standing = {task.name: Ended("done") for task in tasks if stands(task)}
    board = _Board([task for task in tasks if task.name not in standing], standing)
    progress.start("runs", len(tasks), len(standing))
    with _signals() as asked:
        try:
            while (board.waiting or board.running) and not asked:
                _start_ready(board, launcher, progress)
                _collect(board, progress)
                if board.running:
                    time.sleep(SECONDS)
        finally:
            if board.running:
                progress.note("stopping: the running runs save and end; interrupt again to kill them")
            _stop(board, asked)
    if asked:
        raise Interrupted("compare") if asked[0] == signal.SIGTERM else KeyboardInterrupt
    progress.finish()
    return {task.name: board.ended[task.name] for task in tasks}


def _require_startable(tasks: Sequence[Task]) -> None:
    """Refuse needs that are no task of the call, and tasks that need each other."""
    names = {task.name for task in tasks}
    unknown = [f"{task.name} needs {name}" for task in tasks for name in task.needs if name not in names]
    if unknown:
        raise ValueError(f"no task has such a name: {', '.join(unknown)}")
    graphlib.TopologicalSorter({task.name: task.needs for task in tasks}).prepare()  # its CycleError names the circle


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals that asked to stop, as they come in; none where this is not the main thread."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in wanted}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_ready(board: _Board, launcher: Launcher, progress: Progress) -> None:
    for task in list(board.waiting):
        states = {name: board.ended[name].state for name in task.needs if name in board.ended}
        lacking = [name for name, state in states.items() if state != "done"]
        if lacking:
            board.ended[task.name] = Ended("waiting", f"for {', '.join(lacking)}")
            board.waiting.remove(task)
            progress.advance()
        elif len(states) == len(task.needs) and len(board.running) < launcher.slots:
            slot = next(number for number in range(launcher.slots) if number not in board.running)
            _open_log(task)
            board.running[slot] = task, launcher.start(task, slot)
            board.waiting.remove(task)
            progress.note(f"{task.name}: started")


def _open_log(task: Task) -> None:
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        with open(task.folder / LOG, "a", encoding="utf-8") as log:
            log.write(f"{START}{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {shlex.join(task.command)}\n")
    except OSError as error:
        raise StorageError("the folder of a run cannot be written", where=task.folder, found=error.strerror) from error


def _collect(board: _Board, progress: Progress) -> None:
    for slot, (task, job) in list(board.running.items()):
        code = job.poll()
        if code is None:
            continue
        del board.running[slot]
        if code == 0:
            write_json(task.folder / "stands.json", {"key": hash_json(task.key)})
            board.ended[task.name] = Ended("done")
            progress.note(f"{task.name}: done")
        else:
            board.ended[task.name] = Ended("failed", last_error(task.folder / LOG, code))
            progress.note(f"{task.name}: failed: {board.ended[task.name].reason}")
        progress.advance()


def _stop(board: _Board, asked: Sequence[int]) -> None:
    """Let the running tasks save; of those that still ended well it is noted that they stand."""
    before = len(asked)
    for _, job in board.running.values():
        job.stop()
    while board.running:
        if len(asked) > max(before, 1):
            for _, job in board.running.values():
                job.kill()
        _collect(board, Progress())
        time.sleep(SECONDS if board.running else 0)


def stands(task: Task) -> bool:
    """Whether the folder of a task holds its end, for this very key, and all that it leaves."""
    path = task.folder / "stands.json"
    if not all((task.folder / name).is_file() for name in task.leaves):
        return False
    try:
        return path.is_file() and read_json(path).get("key") == hash_json(task.key)
    except StorageError:  # damaged: the run itself finds out what of it is whole
        return False


def last_error(log: Path, code: int) -> str:
    """The first line of the last error of the last attempt in a log, or how the process ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    first = max((number for number, line in enumerate(lines) if line.startswith(START)), default=-1)
    lines = [line for line in lines[first + 1 :] if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code < 0:
        return f"killed by {_signal_name(-code)}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    if told:
        return told[-1]
    return f"exit code {code}" + (f": {lines[-1].strip()}" if lines else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def preceptor_command(*arguments: str) -> tuple[str, ...]:
    """The command line of this very installation."""
    return (sys.executable, "-m", "preceptor.cli", *arguments)
