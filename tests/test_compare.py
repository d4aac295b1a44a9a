"""Comparisons: of a matrix whose runs come and fail, and of runs that are finished; what is refused before any compute.

The runs are made up by a launcher that writes what a run leaves; one real matrix, small, is at the end.
"""

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from preceptor import plainyaml
from preceptor.compare import Compared, compare_matrix, compare_runs
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.launching import Job, Task
from preceptor.matrix import Matrix
from preceptor.recipe import Recipe, read_recipe
from preceptor.resuming import locked
from preceptor.storage import hash_json, read_json, write_json, write_text

from .evaluation.comparisons import fabricate_result
from .evaluation.fabricate import fabricate_rows

GAINS = {"teacher": 0.1, "control": 0.0, "kd": 0.02, "cwd": 0.04, "at": 0.0}


def write_arm(run: Path, arm: str, recipe: Recipe, gain: float, who: str, **rows: Any) -> None:
    """What the training and judging of an arm leave; `who` decides its weights and its chance."""
    scores = fabricate_rows(**{"cases": 12, "seeds": recipe.seeds, "arm": who, "gain": gain, **rows})
    write_text(run / arm / "cases.csv", scores.to_csv(index=False))
    for seed in recipe.seeds:
        place = run / arm / f"seed-{seed}"
        write_text(place / "checkpoints" / "latest.safetensors", "learned")
        write_text(place / "best.safetensors", "learned")
        write_json(place / "package" / "package.json", {"card": {"seed": seed}})
        write_json(place / "judged.json", {"weights": hash_json([who, seed])})
        write_json(place / "cost.json", {"parameters": 1000, "gflops": 0.5, "latency_ms": 2.0, "memory_mb": 1.0})
        write_json(place / "done.json", {"epochs": 2, "minutes": 0.1 + seed})


def write_run(run: Path, recipe: Recipe, gains: dict[str, float], who: dict[str, str], **rows: Any) -> Path:
    """A finished run of the arms in `gains`."""
    for arm, gain in gains.items():
        write_arm(run, arm, recipe, gain, who.get(arm, arm), **rows)
    write_text(run / "recipe.yaml", recipe.to_yaml())
    write_json(run / "data.json", {"facts": {"root": "x", "layout": "folders"}})
    if set(gains) != {"teacher"}:  # a run of a teacher alone is not summarised
        write_json(run / "summary.json", {"unit": "mm", "scored": "case"})
        write_text(run / "report.html", "")
    return run


class Done:
    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass


class Scribe:
    """A launcher that writes what runs leave. faults: exit codes of runs that fail; made: the runs that it made."""

    slots = 1

    def __init__(self, **faults: int) -> None:
        self.faults = {name.replace("__", "--").replace("_to_", "-"): code for name, code in faults.items()}
        self.made: list[str] = []

    def start(self, task: Task, slot: int) -> Job:
        self.made.append(task.name)
        if task.name in self.faults:
            with open(task.folder / "log.txt", "a", encoding="utf-8") as log:
                log.write("error: the loss is not finite\n  remedy: ...\n")
            return Done(self.faults[task.name])
        recipe = read_recipe(task.command[task.command.index("run") + 1])
        arm = task.name.split("-")[0] if "--" not in task.name else "student"
        gain = GAINS.get(task.name.split("--")[-1], GAINS.get(arm, 0.0))
        write_run(task.folder, recipe, {arm: gain}, {arm: task.name})
        for seed in recipe.seeds if arm == "student" else ():
            self.take_teacher(task, seed)
        return Done(0)

    def take_teacher(self, task: Task, seed: int) -> None:
        """The copy of the teacher from which a student learned, and the note of it, once."""
        noted = task.folder / "student" / f"seed-{seed}" / "taught.json"
        if not noted.exists():
            source = task.folder.parent / task.needs[0] / "teacher"
            taken = source / f"seed-{seed}" if (source / f"seed-{seed}").exists() else min(source.glob("seed-*"))
            package = task.folder / "teacher" / f"seed-{seed}" / "package" / "package.json"
            write_json(package, read_json(taken / "package" / "package.json"))
            write_json(noted, {"teacher": "weights"})


@pytest.fixture
def content(small_recipe: dict) -> dict[str, Any]:
    shared = {key: small_recipe[key] for key in ("data", "reports", "training", "evaluate")}
    return {
        "name": "small",
        "description": "two distillers",
        "recipe": shared,
        "teachers": {"reads": small_recipe["teacher"]},
        "students": {"a": small_recipe["student"]},
        "distillers": {"kd": {"name": "kd"}, "cwd": {"name": "cwd"}},
        "seeds": [0, 1],
    }


def matrix(content: dict[str, Any], **changes: Any) -> Matrix:
    return Matrix.model_validate({**content, **changes})


def entries(compared: Compared) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in compared.result["entries"]}


def test_a_matrix_becomes_one_ranked_table_and_one_page(content: dict, tmp_path: Path) -> None:
    compared = compare_matrix(matrix(content), tmp_path / "out", Scribe())
    names = [entry["name"] for entry in compared.result["entries"]]
    assert names == ["teacher-reads", "a--reads--cwd", "a--reads--kd", "control-a"]
    assert read_json(tmp_path / "out" / "comparison.json")["entries"][1]["rank"] == 1
    assert compared.page.is_file()
    with open(tmp_path / "out" / "ranking.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert float(rows[1]["dice gain"]) == pytest.approx(entries(compared)["a--reads--cwd"]["gain"]["dice"]["mean"])
    assert rows[1]["dice infection"]
    assert rows[1]["gflops"] == "0.5"
    assert rows[3]["dice gain"] == ""


def test_entries_know_what_they_are_made_of_and_what_they_cost(content: dict, tmp_path: Path) -> None:
    entry = entries(compare_matrix(matrix(content), tmp_path, Scribe()))["a--reads--kd"]
    assert (entry["student"], entry["teacher"], entry["distiller"]) == ("a", "reads", "kd")
    assert (entry["control"], entry["taught_by"]) == ("control-a", ["teacher-reads"])
    assert (entry["parameters"], entry["epochs"], entry["minutes"]) == (1000, 2, pytest.approx(0.6))
    assert entry["report"] == "runs/a--reads--kd/report.html"
    assert (tmp_path / entry["report"]).is_file()


def test_results_made_up_for_the_page_have_the_keys_of_real_ones(content: dict, tmp_path: Path) -> None:
    result, made_up = compare_matrix(matrix(content), tmp_path, Scribe()).result, fabricate_result()
    assert set(result) == set(made_up)
    assert set(result["entries"][1]) == set(made_up["entries"][1])


def test_nothing_that_stands_is_done_again(content: dict, tmp_path: Path) -> None:
    scribe = Scribe()
    for _ in range(2):
        compare_matrix(matrix(content), tmp_path, scribe)
    assert len(scribe.made) == 4


def test_a_run_that_fails_leaves_the_others_is_listed_and_done_by_the_same_call(content: dict, tmp_path: Path) -> None:
    compared = compare_matrix(matrix(content), tmp_path, Scribe(a__reads__kd=2))
    assert set(entries(compared)) == {"teacher-reads", "control-a", "a--reads--cwd"}
    (item,) = compared.result["unfinished"]
    assert item == {
        "run": "a--reads--kd",
        "state": "failed",
        "reason": "the loss is not finite",
        "log": "runs/a--reads--kd/log.txt",
    }
    assert "a--reads--kd" in compared.result["warnings"][0]
    assert "the loss is not finite" in compared.page.read_text(encoding="utf-8")

    scribe = Scribe()
    again = compare_matrix(matrix(content), tmp_path, scribe)
    assert scribe.made == ["a--reads--kd"]
    assert again.unfinished == {}
    assert len(again.result["entries"]) == 4


def test_what_needs_a_failed_teacher_waits_for_it(content: dict, tmp_path: Path) -> None:
    compared = compare_matrix(matrix(content), tmp_path, Scribe(teacher_to_reads=-9))
    assert set(entries(compared)) == {"control-a"}
    assert compared.unfinished["teacher-reads"].reason == "killed by SIGKILL (out of memory?)"
    assert compared.unfinished["a--reads--kd"].reason == "for teacher-reads"
    assert compared.result["answer"].startswith("Nothing was distilled here")


def test_where_no_run_ended_there_is_an_error_with_every_reason(content: dict, tmp_path: Path) -> None:
    scribe = Scribe(teacher_to_reads=2, control_to_a=2)
    with pytest.raises(StorageError, match=r"(?s)no run came to its end.*control-a: failed the loss is not finite"):
        compare_matrix(matrix(content), tmp_path, scribe)


def test_where_only_teachers_end_the_data_tell_what_is_scored(content: dict, tmp_path: Path) -> None:
    """A run of a teacher alone has no summary."""
    import nibabel
    import numpy as np

    root = tmp_path / "volumes"
    for name, case in itertools.product(("imagesTr", "labelsTr"), range(6)):
        picture = np.zeros((32, 32, 2), np.uint8 if name == "labelsTr" else np.float32)
        picture[4:9, 4:9] = 1
        file = root / name / (f"c{case}.nii.gz" if name == "labelsTr" else f"c{case}_0000.nii.gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(picture, np.diag([1.5, 1.5, 8, 1])), file)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "square": 1}, "file_ending": ".nii.gz"}
    write_json(root / "dataset.json", {**description, "numTraining": 6})
    data = {"root": str(root), "labels": {"background": 0, "square": 1}, "image_size": 32, "channels": 1}
    data["split"] = {"rule": "random", "test": 0.34, "validation": 0.2}
    teachers = {"plain": {"segmentor": {"name": "unguided", "size": "tiny"}}}
    shared = {**content["recipe"], "data": data}
    faults = Scribe(control_to_a=2)
    result = compare_matrix(matrix(content, recipe=shared, teachers=teachers), tmp_path / "out", faults).result
    assert [entry["name"] for entry in result["entries"]] == ["teacher-plain"]
    assert (result["unit"], result["scored"]) == ("mm", "volume")


# A matrix that changes


def test_more_distillers_and_more_seeds_train_only_what_is_new(content: dict, tmp_path: Path) -> None:
    scribe = Scribe()
    compare_matrix(matrix(content), tmp_path, scribe)
    more = {**content["distillers"], "at": {"name": "at"}}
    compare_matrix(matrix(content, distillers=more), tmp_path, scribe)
    assert scribe.made[4:] == ["a--reads--at"]
    compared = compare_matrix(matrix(content, distillers=more, seeds=[0, 1, 2]), tmp_path, scribe)
    assert len(scribe.made) == 5 + 5
    assert {len(entry["seeds"]) for entry in compared.result["entries"]} == {3}


def test_fewer_distillers_compare_those_that_are_left(content: dict, tmp_path: Path) -> None:
    compare_matrix(matrix(content), tmp_path, Scribe())
    scribe = Scribe()
    compared = compare_matrix(matrix(content, only=["*--*--kd"]), tmp_path, scribe)
    assert scribe.made == []
    assert set(entries(compared)) == {"teacher-reads", "control-a", "a--reads--kd"}


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("recipe", {"training": {"epochs": 9}}, "control-a: training.epochs: 2 -> 9"),
        ("recipe", {"augment": {"rotate": 5}}, "teacher-reads: augment.rotate: 0.0 -> 5.0"),
        ("students", {"a": {"size": "small"}}, "control-a: student.size: tiny -> small"),
    ],
)
def test_what_was_learned_otherwise_is_refused_at_once(
    section: str, change: dict, line: str, content: dict, tmp_path: Path
) -> None:
    from preceptor.recipe import merge

    compare_matrix(matrix(content), tmp_path, Scribe())
    scribe = Scribe()
    with pytest.raises(RecipeError, match="runs in this folder were made with another matrix") as told:
        compare_matrix(matrix(merge(content, {section: change})), tmp_path, scribe)
    assert line in told.value.offenders
    assert "--out" in told.value.remedy
    assert scribe.made == []


def test_a_changed_distiller_of_a_run_that_learned_nothing_begins_anew(content: dict, tmp_path: Path) -> None:
    """Its folder holds copies of teacher and control only."""
    compare_matrix(matrix(content), tmp_path, Scribe(a__reads__kd=2))
    place = tmp_path / "runs" / "a--reads--kd"
    old = read_recipe(tmp_path / "runs" / "recipes" / "a--reads--kd.yaml")
    write_run(place, old, {"teacher": 0.1, "control": 0.0}, {})
    changed = {**content["distillers"], "kd": {"name": "kd", "weight": 7.0}}
    scribe = Scribe()
    compare_matrix(matrix(content, distillers=changed), tmp_path, scribe)
    assert scribe.made == ["a--reads--kd"]
    assert read_recipe(place / "recipe.yaml").distill[0].weight == 7.0


def test_a_finished_run_without_its_checkpoints_is_not_begun_anew(content: dict, tmp_path: Path) -> None:
    compare_matrix(matrix(content), tmp_path, Scribe())
    for place in tmp_path.glob("runs/*/*/seed-*/checkpoints"):
        shutil.rmtree(place)
    changed = {**content["distillers"], "kd": {"name": "kd", "weight": 7.0}}
    with pytest.raises(RecipeError, match="made with another matrix"):
        compare_matrix(matrix(content, distillers=changed), tmp_path, Scribe())
    assert (tmp_path / "runs" / "a--reads--kd" / "student" / "seed-0" / "best.safetensors").is_file()


@pytest.mark.parametrize("lost", ["seed-1/done.json", "seed-0/judged.json", "cases.csv"])
def test_a_run_that_lost_its_end_is_done_again(lost: str, content: dict, tmp_path: Path) -> None:
    compare_matrix(matrix(content), tmp_path, Scribe())
    (tmp_path / "runs" / "a--reads--kd" / "student" / lost).unlink()
    scribe = Scribe()
    compare_matrix(matrix(content), tmp_path, scribe)
    assert scribe.made == ["a--reads--kd"]


def test_teachers_may_get_seeds_unless_students_would_have_learned_from_them(content: dict, tmp_path: Path) -> None:
    compare_matrix(matrix(content, teacher_seeds=[0]), tmp_path, Scribe())
    scribe = Scribe()
    for _ in range(2):
        compare_matrix(matrix(content, teacher_seeds=[0], seeds=[0, 1, 2]), tmp_path, scribe)
    assert scribe.made == ["control-a", "a--reads--kd", "a--reads--cwd"]
    with pytest.raises(RecipeError, match="made with another matrix") as told:
        compare_matrix(matrix(content, teacher_seeds=[0, 1], seeds=[0, 1, 2]), tmp_path, scribe)
    line = "teacher_seeds: seed 1 learned from seed 0 of teacher-reads, not from 1"
    assert told.value.offenders == (f"a--reads--kd: {line}", f"a--reads--cwd: {line}")
    assert len(scribe.made) == 3
    compare_matrix(matrix(content, teacher_seeds=[0, 3], seeds=[0, 1, 2, 3]), tmp_path, scribe)
    compare_matrix(matrix(content, teacher_seeds=[0], seeds=[0, 1, 2, 3]), tmp_path, scribe)


def test_another_first_student_leaves_the_teachers(content: dict, tmp_path: Path) -> None:
    heads = {"name": "unet_r18", "size": "tiny", "options": {"auxiliary": True}}
    b = {**heads, "training": {"loss_weights": [1.0, 0.5]}}
    scribe = Scribe()
    compare_matrix(matrix(content), tmp_path, scribe)
    for students in ({"b": b, **content["students"]}, {"b": b}, content["students"]):
        compare_matrix(matrix(content, students=students), tmp_path, scribe)
    assert scribe.made[4:] == ["control-b", "b--reads--kd", "b--reads--cwd"]
    teachers = {"reads": {**content["teachers"]["reads"], "training": {"lr": 0.5}}}
    with pytest.raises(RecipeError, match="made with another matrix") as told:
        compare_matrix(matrix(content, students={"b": b}, teachers=teachers), tmp_path, scribe)
    assert any(line.startswith("teacher-reads: teacher.training.lr: ") for line in told.value.offenders)


def test_other_judging_is_no_other_matrix(content: dict, tmp_path: Path) -> None:
    compare_matrix(matrix(content), tmp_path, Scribe())
    judged = {**content["recipe"], "evaluate": {"bootstrap": 100, "tolerance": 5.0}}
    compared = compare_matrix(matrix(content, recipe=judged), tmp_path, Scribe())
    assert (compared.result["tolerance"], compared.result["resamples"]) == (5.0, 100)


def test_faults_are_told_before_anything_runs(content: dict, tmp_path: Path) -> None:
    scribe = Scribe()
    bad = {**content["distillers"], "x": {"name": "kd", "options": {"temprature": 3}}}
    with pytest.raises(RecipeError, match="temprature"):
        compare_matrix(matrix(content, distillers=bad), tmp_path, scribe)
    absent = {**content["recipe"], "data": {**content["recipe"]["data"], "root": str(tmp_path / "absent")}}
    with pytest.raises(DataError, match="does not exist"):
        compare_matrix(matrix(content, recipe=absent), tmp_path, scribe)
    assert scribe.made == []


def test_two_comparisons_in_one_folder_are_refused(content: dict, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StorageError, match="another process is working"):
        compare_matrix(matrix(content), tmp_path, Scribe())


def test_phantoms_are_made_by_the_one_comparison_of_the_folder(content: dict, tmp_path: Path) -> None:
    data = {"root": str(tmp_path / "films"), "phantoms": {}, "labels": {"background": 0, "infection": 255}}
    data |= {"image_size": 32, "channels": 1}
    phantoms = matrix(content, recipe={**content["recipe"], "data": data})
    with locked(tmp_path / "out"), pytest.raises(StorageError, match="another process is working"):
        compare_matrix(phantoms, tmp_path / "out", Scribe())
    assert not (tmp_path / "films").exists()


# Finished runs


def finished(folder: Path, recipe: dict, student: float = 0.03, who: str = "", **rows: Any) -> Path:
    """A run of all arms whose teacher and control are those of every other such run."""
    arms = {"teacher": 0.1, "control": 0.0, "student": student}
    return write_run(folder, Recipe.model_validate(recipe), arms, {"student": who or folder.name}, **rows)


def test_finished_runs_share_their_equal_controls_and_teachers(small_recipe: dict, tmp_path: Path) -> None:
    runs = [finished(tmp_path / "one", small_recipe), finished(tmp_path / "two", small_recipe, student=0.06)]
    compared = compare_runs(runs, tmp_path / "both")
    names = [entry["name"] for entry in compared.result["entries"]]
    assert names == ["one: teacher", "two: student", "one: student", "one: control"]
    two = entries(compared)["two: student"]
    assert (two["control"], two["taught_by"], two["distiller"]) == ("one: control", ["one: teacher"], "token_l1")
    assert two["report"] == "../two/report.html"
    assert compared.result["unit"] == "mm"


def test_runs_with_controls_of_their_own_keep_them(small_recipe: dict, tmp_path: Path) -> None:
    one = finished(tmp_path / "one", small_recipe)
    two = finished(tmp_path / "two", small_recipe)
    write_arm(two, "control", Recipe.model_validate(small_recipe), 0.01, "another control")
    found = entries(compare_runs([one, two], tmp_path / "both"))
    assert found["one: student"]["control"] == "one: control"
    assert found["two: student"]["control"] == "two: control"


def test_students_are_shown_each_beside_its_control_even_with_equal_weights(small_recipe: dict, tmp_path: Path) -> None:
    one = finished(tmp_path / "one", small_recipe, who="equal")
    two = finished(tmp_path / "two", small_recipe, who="equal")
    write_arm(two, "control", Recipe.model_validate(small_recipe), 0.01, "another control")
    found = entries(compare_runs([one, two], tmp_path / "both"))
    assert found["one: student"]["control"] == "one: control"
    assert found["two: student"]["control"] == "two: control"


def test_a_single_run_is_a_comparison_too(small_recipe: dict, tmp_path: Path) -> None:
    compared = compare_runs([finished(tmp_path / "one", small_recipe)], tmp_path / "out")
    assert compared.result["answer"].startswith("The distillation beats its control")


def test_runs_of_equal_names_are_told_apart_and_a_run_named_twice_is_refused(
    small_recipe: dict, tmp_path: Path
) -> None:
    runs = [finished(tmp_path / part / "run", small_recipe, who=part) for part in ("x", "y")]
    names = entries(compare_runs(runs, tmp_path / "out"))
    assert {f"{run}: student" for run in runs} <= set(names)
    with pytest.raises(RecipeError, match="a run is named twice"):
        compare_runs([runs[0], runs[0]], tmp_path / "out")


def test_other_cases_are_refused_unless_the_shared_ones_are_asked_for(small_recipe: dict, tmp_path: Path) -> None:
    runs = [finished(tmp_path / "one", small_recipe), finished(tmp_path / "two", small_recipe, cases=15)]
    with pytest.raises(DataError, match="different cases") as told:
        compare_runs(runs, tmp_path / "out")
    assert any("c014" in line for line in told.value.offenders)
    compared = compare_runs(runs, tmp_path / "out", intersect=True)
    assert (compared.result["cases"], compared.result["left_out"]) == (12, 3)


def test_other_classes_are_refused(small_recipe: dict, tmp_path: Path) -> None:
    runs = [finished(tmp_path / "one", small_recipe), finished(tmp_path / "two", small_recipe, classes=("other",))]
    with pytest.raises(DataError, match="different classes"):
        compare_runs(runs, tmp_path / "out", intersect=True)


def test_another_tolerance_is_told(small_recipe: dict, tmp_path: Path) -> None:
    other = {**small_recipe, "evaluate": {"bootstrap": 200, "tolerance": 5.0}}
    runs = [finished(tmp_path / "one", small_recipe), finished(tmp_path / "two", other)]
    warnings = compare_runs(runs, tmp_path / "out").result["warnings"]
    assert any("different tolerances (2, 5)" in line for line in warnings)


@pytest.mark.parametrize("missing", ["recipe.yaml", "summary.json"])
def test_a_folder_that_is_no_judged_run_is_refused(missing: str, small_recipe: dict, tmp_path: Path) -> None:
    run = finished(tmp_path / "one", small_recipe)
    (run / missing).unlink()
    with pytest.raises(StorageError, match="this is no judged run") as told:
        compare_runs([run], tmp_path / "out")
    assert told.value.found == f"no {missing}"


# A real one


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "preceptor.cli", "compare", *map(str, arguments), "-q"]


@pytest.mark.slow
def test_a_real_matrix_survives_kills_and_goes_on(content: dict, tmp_path: Path) -> None:
    file, out = tmp_path / "my.matrix.yaml", tmp_path / "out"
    training = {**content["recipe"]["training"], "epochs": 6, "checkpoint_minutes": 0.0}
    content["recipe"] = {**content["recipe"], "training": training}
    write_text(file, plainyaml.render({**content, "teacher_seeds": [0]}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    # SIGTERM while the teacher and the control train: both save
    steps = [
        out / "runs" / name / arm / "seed-0" / "steps.csv"
        for name, arm in (("teacher-reads", "teacher"), ("control-a", "control"))
    ]
    process = subprocess.Popen(command(file, "-o", out, "-j", 2), env=environment)
    limit = time.monotonic() + 200
    while not all(path.exists() for path in steps):
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.05)
    locked_out = subprocess.run(command(file, "-o", out), capture_output=True, text=True, check=False, env=environment)
    assert (locked_out.returncode, "another process is working" in locked_out.stderr) == (2, True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert not (out / "comparison.json").exists()

    # one run fails at run time: an unreadable recipe of a student, since its folder cannot be written
    blocked = out / "runs" / "a--reads--kd"
    blocked.mkdir(parents=True, exist_ok=True)
    (blocked / "student").write_text("in the way")
    done = subprocess.run(
        command(file, "-o", out, "-j", 2), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert "a--reads--kd: failed" in done.stderr
    result = read_json(out / "comparison.json")
    assert [item["run"] for item in result["unfinished"]] == ["a--reads--kd"]

    # the fault gone, the same command does that run alone
    (blocked / "student").unlink()
    before = (out / "runs" / "a--reads--cwd" / "log.txt").read_text(encoding="utf-8")
    done = subprocess.run(
        command(file, "-o", out, "-j", 2), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (out / "runs" / "a--reads--cwd" / "log.txt").read_text(encoding="utf-8") == before
    result = read_json(out / "comparison.json")
    assert result["unfinished"] == []
    seeds = {entry["name"]: entry["seeds"] for entry in result["entries"]}
    assert seeds == {"teacher-reads": [0], "control-a": [0, 1], "a--reads--kd": [0, 1], "a--reads--cwd": [0, 1]}

    # and finished runs of it compare as they are
    done = subprocess.run(
        command(out / "runs" / "a--reads--kd", out / "runs" / "a--reads--cwd", "-o", tmp_path / "both"),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_json(tmp_path / "both" / "comparison.json")["entries"]) == 4
