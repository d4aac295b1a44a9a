"""Many commands: those that stand are left alone, those that fail harm no other, and none outlives who asked for it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from preceptor.errors import Interrupted
from preceptor.launchers import Processes
from preceptor.launching import START, Ended, Task, last_error, launch, stands
from preceptor.progress import Progress


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = 0

    def start(self, name: str, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.done += amount


def python(program: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(program), *map(str, arguments))


def shell(line: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", line)


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """A task of a shell line that leaves a line in `order.txt` each time it runs."""

    def make(name: str, line: str = "true", needs: Sequence[str] = (), key: object = 1) -> Task:
        counted = f"echo {name} >> {tmp_path / 'order.txt'}; {line}"
        return Task(name, shell(counted), tmp_path / name, tuple(needs), key)

    return make


def order(folder: Path) -> list[str]:
    path = folder / "order.txt"
    return path.read_text().split() if path.exists() else []


def test_tasks_run_after_those_they_need(task: Callable[..., Task], tmp_path: Path) -> None:
    tasks = [task("c", needs=["a", "b"]), task("a"), task("b", "sleep 0.3")]
    ended = launch(tasks, Processes(2), Progress())
    assert ended == dict.fromkeys("cab", Ended("done"))
    assert order(tmp_path)[-1] == "c"


def test_what_stands_is_not_run_again_until_its_key_changes(task: Callable[..., Task], tmp_path: Path) -> None:
    told = Told()
    for key in (1, 1, 2):
        assert launch([task("a", key=key), task("b")], Processes(), told)["a"].state == "done"
    assert order(tmp_path) == ["a", "b", "a"]
    assert told.done == told.total == 2


def test_a_damaged_mark_counts_as_unfinished(task: Callable[..., Task], tmp_path: Path) -> None:
    launch([task("a")], Processes(), Progress())
    assert stands(task("a"))
    (tmp_path / "a" / "stands.json").write_text("{", encoding="utf-8")
    assert not stands(task("a"))


def test_what_lost_a_file_that_it_leaves_is_run_again(task: Callable[..., Task], tmp_path: Path) -> None:
    made = replace(task("a", f"touch {tmp_path / 'a' / 'kept'} {tmp_path / 'a' / 'lost'}"), leaves=("kept", "lost"))
    for _ in range(2):
        launch([made], Processes(), Progress())
    assert order(tmp_path) == ["a"]
    (tmp_path / "a" / "lost").unlink()
    assert not stands(made)
    launch([made], Processes(), Progress())
    assert order(tmp_path) == ["a", "a"]
    assert stands(made)


@pytest.mark.parametrize(
    ("needs", "message"),
    [({"b": ["absent"]}, "b needs absent"), ({"a": ["b"], "b": ["a"]}, "cycle"), ({"a": ["a"]}, "cycle")],
)
def test_tasks_that_could_never_start_are_refused_before_any_runs(
    needs: dict[str, list[str]], message: str, task: Callable[..., Task]
) -> None:
    class Idle(Processes):
        def start(self, task: Task, slot: int):
            raise AssertionError("nothing is to run")

    with pytest.raises(ValueError, match=message):
        launch([task("first"), *(task(name, needs=needs.get(name, ())) for name in "ab")], Idle(), Progress())


def test_a_failed_task_leaves_the_others_and_is_tried_again(task: Callable[..., Task], tmp_path: Path) -> None:
    gone = tmp_path / "fault"
    gone.touch()
    bad = f"echo 'error: a.png: no mask' >&2; test ! -e {gone}"
    tasks = [task("bad", bad), task("after", needs=["bad"]), task("last", needs=["after"]), task("good")]
    told = Told()
    ended = launch(tasks, Processes(2), told)
    assert ended["good"] == Ended("done")
    assert ended["bad"] == Ended("failed", "a.png: no mask")
    assert ended["after"] == Ended("waiting", "for bad")
    assert ended["last"] == Ended("waiting", "for after")
    assert "bad: failed: a.png: no mask" in told.notes
    assert told.done == told.total == 4

    gone.unlink()
    assert {end.state for end in launch(tasks, Processes(2), Progress()).values()} == {"done"}
    assert order(tmp_path).count("good") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("kill -9 $$", "killed by SIGKILL (out of memory?)"),
        ("kill -11 $$", "killed by SIGSEGV"),
        ("exit 3", "exit code 3"),
        ("echo Traceback; echo 'ZeroDivisionError: division by zero'; exit 1", "exit code 1: ZeroDivisionError"),
    ],
)
def test_the_reason_tells_how_a_process_ended(line: str, reason: str, task: Callable[..., Task]) -> None:
    ended = launch([task("a", line), task("b")], Processes(), Progress())
    assert ended["a"].state == "failed"
    assert ended["a"].reason.startswith(reason)
    assert ended["b"].state == "done"


def test_the_reason_is_that_of_the_last_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"{START}first\nerror: old\n{START}second\nwarming up\nKeyError: 'new'\n", encoding="utf-8")
    assert last_error(log, 1) == "exit code 1: KeyError: 'new'"
    log.write_text(
        f"{START}first\nerror: old\n{START}second\nerror: a\nerror: x.png: b\n  found: c\n", encoding="utf-8"
    )
    assert last_error(log, 2) == "x.png: b"
    log.write_text(f"{START}first\nerror: old\n{START}second\n", encoding="utf-8")
    assert last_error(log, 2) == "exit code 2"
    assert last_error(tmp_path / "absent.txt", 2) == "exit code 2"
    assert last_error(log, -99) == "killed by signal 99"


def test_the_log_holds_every_attempt_with_its_command(task: Callable[..., Task], tmp_path: Path) -> None:
    for _ in range(2):
        launch([task("a", "echo out; echo err >&2; false")], Processes(), Progress())
    lines = (tmp_path / "a" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith(START)] == ["out", "err"] * 2
    starts = [line for line in lines if line.startswith(START)]
    assert len(starts) == 2
    assert all("/bin/sh -c" in line for line in starts)


def test_no_more_than_the_slots_run_at_a_time(tmp_path: Path) -> None:
    program = """
        import os, sys, time
        folder = sys.argv[1]
        open(f"{folder}/{os.getpid()}.running", "w").close()
        time.sleep(0.3)
        count = len([name for name in os.listdir(folder) if name.endswith(".running")])
        os.remove(f"{folder}/{os.getpid()}.running")
        sys.exit(count > 2)
    """
    tasks = [Task(str(n), python(program, tmp_path), tmp_path / str(n)) for n in range(5)]
    assert {end.state for end in launch(tasks, Processes(2), Progress()).values()} == {"done"}


def test_it_works_beside_the_main_thread(task: Callable[..., Task]) -> None:
    found: dict[str, Ended] = {}
    thread = threading.Thread(target=lambda: found.update(launch([task("a")], Processes(), Progress())))
    thread.start()
    thread.join()
    assert found == {"a": Ended("done")}


# Interrupted

SAVES = """
    import pathlib, signal, sys, time
    folder = pathlib.Path(sys.argv[1])
    def save(*_):
        time.sleep(0.5)
        (folder / "saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / "begun").touch()
    while True:
        time.sleep(0.05)
"""
PARENT = """
    import sys, pathlib
    from preceptor.launchers import Processes
    from preceptor.launching import Task, launch
    from preceptor.errors import Interrupted
    from preceptor.progress import PlainProgress
    folder, program = pathlib.Path(sys.argv[1]), sys.argv[2]
    tasks = [Task(n, (sys.executable, "-c", program, str(folder / n)), folder / n) for n in ("a", "b")]
    try:
        launch(tasks, Processes(2), PlainProgress())
    except KeyboardInterrupt:
        sys.exit(130)
    except Interrupted:
        sys.exit(143)
"""


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to pass"
        time.sleep(0.02)


def begun(folder: Path, program: str) -> tuple[subprocess.Popen, list[int]]:
    """A process with two children that have begun, and the numbers of the children."""
    parent = subprocess.Popen(python(PARENT, folder, textwrap.dedent(program)), stderr=subprocess.PIPE)
    until(lambda: all((folder / name / "begun").exists() for name in "ab"))
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True, check=True)
    return parent, [int(number) for number in listed.stdout.split()]


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


linux = pytest.mark.skipif(sys.platform != "linux", reason="the system tells no child that its parent died")


@linux
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_call_waits_until_its_tasks_have_saved(sign: signal.Signals, code: int, tmp_path: Path) -> None:
    parent, children = begun(tmp_path, SAVES)
    assert len(children) == 2
    os.kill(parent.pid, sign)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == code
    assert all((tmp_path / name / "saved").exists() for name in "ab")
    assert not any(alive(child) for child in children)
    assert b"save and end" in err


@linux
def test_a_second_interrupt_kills_what_does_not_end(tmp_path: Path) -> None:
    stubborn = SAVES.replace("time.sleep(0.5)", "time.sleep(600)")
    parent, children = begun(tmp_path, stubborn)
    os.kill(parent.pid, signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None
    os.kill(parent.pid, signal.SIGINT)
    parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert not any(alive(child) for child in children)


@linux
def test_no_task_outlives_a_killed_call(tmp_path: Path) -> None:
    parent, children = begun(tmp_path, SAVES)
    parent.kill()
    parent.communicate(timeout=60)
    until(lambda: not any(alive(child) for child in children))
    assert all((tmp_path / name / "saved").exists() for name in "ab")


def test_an_interrupted_call_goes_on_where_it_stopped(task: Callable[..., Task], tmp_path: Path) -> None:
    class Impatient(Told):
        def advance(self, amount: int = 1, **values: float | str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    tasks = [task("a"), task("b", needs=["a"])]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        launch(tasks, Processes(), Impatient())
    assert signal.getsignal(signal.SIGTERM) is before
    assert order(tmp_path) == ["a"]
    assert launch(tasks, Processes(), Progress())["b"].state == "done"
    assert order(tmp_path) == ["a", "b"]


def test_a_launcher_that_breaks_stops_what_runs(tmp_path: Path) -> None:
    class Breaks(Processes):
        def start(self, task: Task, slot: int):
            if task.name == "b":
                until(lambda: (tmp_path / "a" / "begun").exists())
                raise ZeroDivisionError
            return super().start(task, slot)

    tasks = [Task(name, python(SAVES, tmp_path / name), tmp_path / name) for name in "ab"]
    with pytest.raises(ZeroDivisionError):
        launch(tasks, Breaks(2), Progress())
    assert (tmp_path / "a" / "saved").exists()
