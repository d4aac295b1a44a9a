"""Arms from files: equal starts, refusals, and two processes that train one network."""

import csv
from pathlib import Path

import pytest
import torch

from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import load_package, save_package
from preceptor.errors import RecipeError, TrainingError
from preceptor.learning.arm import (
    ArmJob,
    build_network,
    build_task,
    check_arms,
    check_same_view,
    check_size,
    lessons,
    segmentor_of,
    told,
)
from preceptor.learning.tasks import Distilled
from preceptor.pipeline import Pipeline, run
from preceptor.recipe import Recipe, validate_recipe
from preceptor.storage import hash_tensors


def epochs(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_control_and_student_start_from_the_same_weights(small_recipe: dict) -> None:
    recipe = validate_recipe(small_recipe)
    control, student = (build_network(segmentor_of(recipe, arm, None), 3) for arm in ("control", "student"))
    other = build_network(segmentor_of(recipe, "student", None), 4)
    assert hash_tensors(control.state_dict()) == hash_tensors(student.state_dict())
    assert hash_tensors(other.state_dict()) != hash_tensors(student.state_dict())


def packaged_teacher(recipe: Recipe, folder: Path, **changes: object) -> None:
    segmentor = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 1, "classes": 2, "condition": None}
    preprocessing = Preprocessing.from_recipe(recipe.data.model_copy(update=changes))
    labels = {"background": 0, "square": 255}
    save_package(
        folder,
        build_network({**segmentor, "pretrained": None}, 0),
        segmentor=segmentor,
        preprocessing=preprocessing,
        labels=labels,
        card={},
    )


def test_a_teacher_that_sees_another_picture_is_refused_with_both_values(small_recipe: dict, tmp_path: Path) -> None:
    teacher = {"segmentor": {"name": "unguided", "size": "tiny"}, "source": str(tmp_path / "package")}
    recipe = validate_recipe({**small_recipe, "teacher": teacher})
    packaged_teacher(recipe, tmp_path / "package", image_size=64)
    with pytest.raises(RecipeError, match=r"data\.size: teacher .*64"):
        run(recipe, tmp_path / "run", only=["teacher"])


def test_a_teacher_with_the_same_classes_in_another_order_is_refused(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    packaged_teacher(recipe, tmp_path / "package")
    package = load_package(tmp_path / "package")
    check_same_view(recipe, package, "package")
    turned = recipe.data.model_copy(update={"labels": {"square": 255, "background": 0}})
    with pytest.raises(RecipeError, match=r"order of data\.labels: teacher background, square"):
        check_same_view(recipe.model_copy(update={"data": turned}), package, "package")


def test_a_size_that_the_network_cannot_take_is_refused(small_recipe: dict) -> None:
    recipe = validate_recipe(small_recipe, changes=["data.image_size=[32, 40]"])
    network = build_network(segmentor_of(recipe, "control", None), 0)
    with pytest.raises(RecipeError, match="multiples of 32"):
        check_size(recipe, network)


def test_a_teacher_that_cannot_read_its_reports_is_refused(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe, changes=["teacher.segmentor.name=unguided"])
    pipeline = Pipeline(recipe, tmp_path / "run")
    train, validation = pipeline.shelves
    job = ArmJob(recipe, "teacher", 0, tmp_path / "arm", train, validation, pipeline.features)
    with pytest.raises(RecipeError, match="reads none"):
        build_task(job)


def test_a_named_package_serves_as_teacher(small_recipe: dict, tmp_path: Path) -> None:
    teacher = {"segmentor": {"name": "unguided", "size": "tiny"}, "source": str(tmp_path / "package")}
    recipe = validate_recipe({**small_recipe, "teacher": teacher})
    packaged_teacher(recipe, tmp_path / "package")
    pipeline = Pipeline(recipe, tmp_path / "run")
    pipeline.run(["teacher"])
    train, validation = pipeline.shelves
    place = pipeline.place("teacher", 0) / "package"
    job = ArmJob(recipe, "student", 0, tmp_path / "arm", train, validation, None, {"teacher": place})
    task = build_task(job)
    assert isinstance(task, Distilled)
    torch.testing.assert_close(
        task.teachers["teacher"].network.state_dict(),
        build_network(segmentor_of(recipe, "teacher", None), 0).state_dict(),
    )


@pytest.mark.slow
def test_two_processes_train_one_network_and_both_resume(small_recipe: dict, tmp_path: Path) -> None:
    training = {**small_recipe["training"], "devices": 2, "accelerator": "cpu", "batch_size": 2, "epochs": 2}
    out = tmp_path / "run"
    run(validate_recipe({**small_recipe, "training": training}), out, only=["control"])
    first = epochs(out / "control" / "seed-0")
    assert [row["epoch"] for row in first] == ["0", "1"]
    assert first[-1]["step"] == "4"  # 8 cases, 2 processes, batches of 2: 2 steps an epoch
    longer = {**training, "epochs": 3}
    run(validate_recipe({**small_recipe, "training": longer}), out, only=["control"])
    assert [row["epoch"] for row in epochs(out / "control" / "seed-0")] == ["0", "1", "2"]


@pytest.mark.slow
def test_an_error_in_one_of_two_processes_ends_both_with_its_message(small_recipe: dict, tmp_path: Path) -> None:
    training = {**small_recipe["training"], "devices": 2, "accelerator": "cpu", "batch_size": 2, "lr": 1e30}
    training |= {"clip": 0.0, "bad_steps": 1, "epochs": 30}
    with pytest.raises(TrainingError, match="not finite"):
        run(validate_recipe({**small_recipe, "training": training}), tmp_path / "run", only=["control"])


def test_what_each_distiller_compares_is_told(small_recipe: dict) -> None:
    recipe = validate_recipe({**small_recipe, "distill": [{"name": "token_l1", "weight": 0.5}, {"name": "kd"}]})
    taps = build_network(segmentor_of(recipe, "student", None), 0).taps
    lines = told(recipe, lessons(recipe, taps, {"teacher": taps}, 0))
    assert lines[0].startswith("token_l1 from teacher, weight 0.5: ")
    assert f"{taps[0].name} [{taps[0].channels}, s{taps[0].stride}] <- {taps[0].name}" in lines[0]
    assert lines[1] == "kd from teacher, weight 1: logits"


def test_side_heads_without_a_weight_are_refused(small_recipe: dict) -> None:
    changes = ["student.options.deep_supervision=true"]
    with pytest.raises(RecipeError, match="2 side heads, and 0 weights"):
        check_arms(validate_recipe(small_recipe, changes=changes))
    check_arms(
        validate_recipe(
            small_recipe,
            changes=[*changes, "training.loss_weights=[1.0, 0.4, 0.2]", "teacher.training.loss_weights=[1.0]"],
        )
    )


@pytest.mark.parametrize(
    ("teachers", "changes", "arm", "remedy"),
    [
        ({}, ["student.options.deep_supervision=true"], "control", "set training.loss_weights, of control and student"),
        ({}, ["teacher.training.loss_weights=[1.0, 1.0]"], "teacher", "set teacher.training.loss_weights;"),
        (
            {"x": {}},
            ["teachers.x.training.loss_weights=[1.0, 1.0]"],
            "teacher-x",
            "set teachers.x.training.loss_weights;",
        ),
    ],
)
def test_side_heads_are_mended_where_their_arm_is_described(
    teachers: dict, changes: list[str], arm: str, remedy: str, small_recipe: dict
) -> None:
    if teachers:
        small_recipe["teachers"] = dict.fromkeys(teachers, small_recipe["teacher"])
        del small_recipe["teacher"]
    with pytest.raises(RecipeError, match=f"the network of the {arm} has") as told:
        check_arms(validate_recipe(small_recipe, changes=changes))
    assert remedy in told.value.remedy
