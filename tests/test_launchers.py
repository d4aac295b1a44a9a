"""Where runs are started: devices are dealt, threads shared, and a cluster that is not there says so."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from preceptor.errors import RecipeError
from preceptor.launchers import Logged, Processes, Submitit
from preceptor.launching import Ended, Task, launch
from preceptor.progress import Progress

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def shown(task: Task) -> dict[str, str]:
    """The environment that a task of `SHOW` had."""
    return json.loads((task.folder / "log.txt").read_text(encoding="utf-8").splitlines()[-1])


def shows(folder: Path, count: int = 1, wait: float = 0) -> list[Task]:
    program = f"import time; time.sleep({wait}); {SHOW}"
    return [Task(str(n), (sys.executable, "-c", program), folder / str(n)) for n in range(count)]


def test_devices_are_dealt_to_the_slots_in_turn(tmp_path: Path) -> None:
    tasks = shows(tmp_path, 4, wait=0.5)
    launch(tasks, Processes(4, ["2", "5"]), Progress())
    assert [shown(task)["CUDA_VISIBLE_DEVICES"] for task in tasks] == ["2", "5", "2", "5"]


def test_one_device_is_never_given_twice_at_a_time(tmp_path: Path) -> None:
    tasks = shows(tmp_path, 3)
    launch(tasks, Processes(1, ["7", "8"]), Progress())
    assert {shown(task)["CUDA_VISIBLE_DEVICES"] for task in tasks} == {"7"}


def test_without_devices_every_run_sees_what_its_parent_does(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    tasks = shows(tmp_path)
    launch(tasks, Processes(), Progress())
    assert shown(tasks[0])["CUDA_VISIBLE_DEVICES"] == "3"


def test_threads_are_shared_unless_the_user_says_otherwise(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("preceptor.launchers._cores", lambda: 8)
    tasks = shows(tmp_path)
    launch(tasks, Processes(4), Progress())
    assert shown(tasks[0])["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    launch([Task("own", tasks[0].command, tmp_path / "own")], Processes(4), Progress())
    assert shown(Task("own", (), tmp_path / "own"))["OMP_NUM_THREADS"] == "5"
    assert Processes(100).threads == 1


def test_a_command_that_does_not_exist_fails_alone(tmp_path: Path) -> None:
    tasks = [Task("bad", ("no-such-program",), tmp_path / "bad"), *shows(tmp_path)]
    ended = launch(tasks, Processes(), Progress())
    assert ended["bad"].state == "failed"
    assert "no-such-program" in ended["bad"].reason or "No such file" in ended["bad"].reason
    assert ended["0"].state == "done"


def test_without_a_scheduler_the_error_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match=r"(?s)launcher slurm: submitit cannot start jobs here.*srun.*processes"):
        Submitit(tmp_path, "slurm")


def test_a_wrong_option_of_the_cluster_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)submitit cannot start jobs here.*frobnicate"):
        Submitit(tmp_path, "local", parameters={"frobnicate": "gpu"})


def test_without_submitit_the_extra_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("preceptor.extras.find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"preceptor\[cluster\]"):
        Submitit(tmp_path, "slurm")


def test_a_job_gives_the_exit_code_and_appends_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n", encoding="utf-8")
    assert Logged((sys.executable, "-c", "print('there'); raise SystemExit(3)"), str(log))() == 3
    assert log.read_text(encoding="utf-8") == "before\nthere\n"


def test_a_job_that_is_queued_again_lets_its_command_save_first(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path(sys.argv[1]).touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nprint('begun', flush=True)\ntime.sleep(600)\n"
    )
    job = Logged((sys.executable, "-c", program, str(tmp_path / "saved")), str(tmp_path / "log.txt"))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(job()))
    thread.start()
    while "begun" not in (tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else True:
        time.sleep(0.02)
    again = job.checkpoint()
    thread.join()
    assert (tmp_path / "saved").exists()
    assert codes == [143]
    assert (again.function.command, again.function.log) == (job.command, job.log)


def test_jobs_run_through_submitit_and_failures_are_told(tmp_path: Path) -> None:
    bad = (sys.executable, "-c", "import sys; sys.exit('error: a.png: no mask')")
    tasks = [*shows(tmp_path), Task("bad", bad, tmp_path / "bad"), Task("after", bad, tmp_path / "after", ("bad",))]
    ended = launch(tasks, Submitit(tmp_path, "local", 2), Progress())
    assert ended["0"] == Ended("done")
    assert ended["bad"] == Ended("failed", "a.png: no mask")
    assert ended["after"].state == "waiting"
    assert "SUBMITIT_LOCAL_JOB_ID" in shown(tasks[0])


def test_jobs_that_are_stopped_save_and_can_be_started_again(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def save(*_):\n    (folder / 'saved').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "if not (folder / 'saved').exists():\n    (folder / 'begun').touch()\n    time.sleep(600)\n"
    )
    task = Task("a", (sys.executable, "-c", program, str(tmp_path / "a")), tmp_path / "a")

    class Impatient(Submitit):
        def start(self, task: Task, slot: int):
            job = super().start(task, slot)
            while not (tmp_path / "a" / "begun").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)
            return job

    with pytest.raises(KeyboardInterrupt):
        launch([task], Impatient(tmp_path, "local"), Progress())
    assert (tmp_path / "a" / "saved").exists()
    assert launch([task], Submitit(tmp_path, "local"), Progress())["a"] == Ended("done")
