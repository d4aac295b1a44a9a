"""The whole way on a tiny data set: what a run leaves, what it does not do twice, what it refuses."""

import json
from pathlib import Path

import pytest

from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.pipeline import Pipeline, run
from preceptor.recipe import validate_recipe
from preceptor.text.features import embed
from preceptor.text.hashed import HashedEncoder


@pytest.fixture
def finished(small_recipe: dict, tmp_path: Path) -> Path:
    """A run of all arms with two seeds."""
    outcome = run(validate_recipe({**small_recipe, "seeds": [0, 1]}), tmp_path / "runs" / "small")
    assert outcome.report == tmp_path / "runs" / "small" / "report.html"
    return outcome.folder


def test_a_run_leaves_what_programs_and_people_look_for(finished: Path) -> None:
    names = ["recipe.yaml", "environment.json", "cases.csv", "data.json", "summary.json", "report.html"]
    assert all((finished / name).is_file() for name in names)
    for arm in ("teacher", "control", "student"):
        assert (finished / arm / "cases.csv").is_file()
        for seed in (0, 1):
            place = finished / arm / f"seed-{seed}"
            assert (place / "metrics.csv").is_file()
            assert (place / "steps.csv").is_file()
            assert (place / "package" / "weights.safetensors").is_file()
    assert (finished / "package" / "package.json").is_file()
    assert not list(finished.rglob("*.ckpt"))
    assert not list(finished.rglob("*.partial"))


def test_summary_holds_the_agreed_keys(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == 6
    assert summary["seeds"] == [0, 1]
    assert (summary["scored"], summary["unit"]) == ("case", "pixel")
    for arm, needs in (("teacher", "report"), ("control", "none"), ("student", "none")):
        found = summary["arms"][arm]
        for metric in ("dice", "iou", "hd95", "assd", "surface_dice", "dice_pooled", "dice_image_mean"):
            assert set(found[metric]) >= {"mean", "low", "high"}
        assert found["needs"] == needs
        assert found["parameters"] > 0
        assert found["latency_ms"] > 0
        assert found["gflops"] > 0
    for gain in ("student_over_control", "teacher_over_control"):
        assert set(summary["gains"][gain]["dice"]) >= {"mean", "low", "high", "p"}
    assert summary["arms"]["student"]["parameters"] == summary["arms"]["control"]["parameters"]
    assert {"right", "empty", "shuffled", "wrong_side"} <= set(summary["probes"])
    assert summary["answer"]


def test_finished_stages_are_not_done_again(finished: Path, small_recipe: dict) -> None:
    watched = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name in ("steps.csv", "cost.json")}
    run(validate_recipe({**small_recipe, "seeds": [0, 1]}), finished)
    assert watched == {path: path.stat().st_mtime_ns for path in watched}


def test_a_further_seed_joins_a_finished_run(finished: Path, small_recipe: dict) -> None:
    before = (finished / "control" / "seed-0" / "steps.csv").read_bytes()
    outcome = run(validate_recipe({**small_recipe, "seeds": [0, 1, 2]}), finished)
    assert outcome.summary is not None
    assert outcome.summary["seeds"] == [0, 1, 2]
    assert (finished / "control" / "seed-0" / "steps.csv").read_bytes() == before


def test_the_shipped_package_predicts_from_images_alone(finished: Path, small_data: Path, tmp_path: Path) -> None:
    from preceptor.delivery.package import load_package
    from preceptor.delivery.predict import predict_files

    package = load_package(finished / "package")
    assert package.needs == "none"
    result = predict_files(package, [small_data / "images"], tmp_path / "masks")
    assert len(result.done) == 16
    assert not result.failed


def test_stages_one_by_one_need_their_forerunners(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    with pytest.raises(StorageError, match="needs a trained teacher"):
        run(recipe, tmp_path / "run", only=["student"])
    with pytest.raises(StorageError, match="not trained yet"):
        run(recipe, tmp_path / "run", only=["evaluate"])
    run(recipe, tmp_path / "run", only=["teacher"])
    run(recipe, tmp_path / "run", only=["student"])
    assert not (tmp_path / "run" / "control").exists()


def test_the_teacher_of_another_run_is_taken_as_it_is(small_recipe: dict, tmp_path: Path) -> None:
    run(validate_recipe(small_recipe), tmp_path / "a", only=["teacher"])
    teacher = {**small_recipe["teacher"], "source": str(tmp_path / "a")}
    run(validate_recipe({**small_recipe, "teacher": teacher}), tmp_path / "b", only=["teacher"])
    theirs, ours = (tmp_path / name / "teacher" / "seed-0" / "package" / "weights.safetensors" for name in "ab")
    assert theirs.read_bytes() == ours.read_bytes()


def test_a_teacher_that_reads_another_encoder_is_refused(small_recipe: dict, tmp_path: Path) -> None:
    run(validate_recipe(small_recipe), tmp_path / "a", only=["teacher"])
    teacher = {**small_recipe["teacher"], "source": str(tmp_path / "a")}
    changed = {**small_recipe, "teacher": teacher, "reports": {"length": 12, "width": 24}}
    with pytest.raises(RecipeError, match="features of another encoder"):
        run(validate_recipe(changed), tmp_path / "b", only=["teacher"])


def test_without_a_teacher_only_the_control_is_trained(small_recipe: dict, tmp_path: Path) -> None:
    plain = {key: value for key, value in small_recipe.items() if key not in ("teacher", "distill")}
    outcome = run(validate_recipe(plain), tmp_path / "run")
    assert outcome.summary is not None
    assert list(outcome.summary["arms"]) == ["control"]
    assert not (tmp_path / "run" / "reports.safetensors").exists()


def test_student_commands_need_no_reports(small_recipe: dict, small_data: Path, tmp_path: Path) -> None:
    (small_data / "reports.csv").unlink()
    plain = {key: value for key, value in small_recipe.items() if key not in ("teacher", "distill")}
    run(validate_recipe(plain), tmp_path / "run", only=["control"])
    with pytest.raises(DataError, match="report"):
        run(validate_recipe(small_recipe), tmp_path / "guided")


def test_labels_that_are_not_declared_stop_with_the_proposal(small_recipe: dict, tmp_path: Path) -> None:
    data = {key: value for key, value in small_recipe["data"].items() if key != "labels"}
    with pytest.raises(RecipeError, match=r"data\.labels is missing"):
        run(validate_recipe({**small_recipe, "data": data}), tmp_path / "run")
    wrong = {**data, "labels": {"background": 0, "square": 1}}
    with pytest.raises(DataError, match="255"):
        run(validate_recipe({**small_recipe, "data": wrong}), tmp_path / "run2")


def test_a_teacher_no_better_than_the_control_is_called_out_before_distilling(small_recipe, tmp_path, capfd) -> None:
    outcome = run(validate_recipe(small_recipe), tmp_path / "run", only=["teacher", "control"])
    done = outcome.folder / "teacher" / "seed-0" / "done.json"
    done.write_text(json.dumps({**json.loads(done.read_text()), "best": 0.0}))
    run(validate_recipe(small_recipe), tmp_path / "run", only=["student"], progress="plain")
    assert "is not above the control's" in capfd.readouterr().err


def test_a_student_whose_teacher_was_replaced_is_refused(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe, changes=["training.epochs=1"])
    folder = run(recipe, tmp_path / "run", only=["teacher", "student"]).folder
    run(recipe, folder, only=["student"])
    weights = folder / "teacher" / "seed-0" / "package" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(StorageError, match="learned from another teacher"):
        run(recipe, folder, only=["student"])


def test_a_run_goes_on_with_features_of_its_own_encoder_only(small_recipe: dict, tmp_path: Path) -> None:
    recipe = validate_recipe(small_recipe)
    Pipeline(recipe, tmp_path / "run").check_data()
    other = embed(["words"], HashedEncoder(12, 32), tmp_path / "other.safetensors").file
    with pytest.raises(RecipeError, match="another encoder than this run began with"):
        Pipeline(validate_recipe(small_recipe, changes=[f"reports.features={other}"]), tmp_path / "run").check_data()


def test_a_longer_training_replaces_the_package_of_the_shorter(small_recipe: dict, tmp_path: Path) -> None:
    plain = {key: value for key, value in small_recipe.items() if key not in ("teacher", "distill")}
    for epochs in (1, 3):
        training = {**small_recipe["training"], "epochs": epochs}
        run(validate_recipe({**plain, "training": training}), tmp_path / "run", only=["control"])
        description = tmp_path / "run" / "control" / "seed-0" / "package" / "package.json"
        assert json.loads(description.read_text(encoding="utf-8"))["card"]["epochs"] == epochs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": {"name": "unguidet"}}, "did you mean unguided"),
        ({"distill": [{"name": "token_l3"}]}, "token_l1"),
        ({"student": {"name": "unguided", "options": {"layer_scal": 1.0}}}, "layer_scal"),
    ],
)
def test_a_wrong_name_stops_before_any_data_is_read(small_recipe: dict, tmp_path: Path, change, message) -> None:
    recipe = validate_recipe({**small_recipe, **change, "data": {**small_recipe["data"], "root": "absent"}})
    with pytest.raises(RecipeError, match=message):
        run(recipe, tmp_path / "run")


def test_a_size_that_the_network_cannot_take_stops_at_once(small_recipe: dict, tmp_path: Path) -> None:
    data = {**small_recipe["data"], "image_size": 100}
    with pytest.raises(RecipeError, match="100"):
        run(validate_recipe({**small_recipe, "data": data}), tmp_path / "run")


def test_a_first_attempt_that_failed_does_not_lock_its_folder(small_recipe: dict, tmp_path: Path) -> None:
    wrong = {**small_recipe["data"], "labels": {"background": 0, "square": 1}}
    with pytest.raises(DataError):
        run(validate_recipe({**small_recipe, "data": wrong}), tmp_path / "run")
    run(validate_recipe(small_recipe), tmp_path / "run", only=["control"])


def test_a_folder_that_cannot_be_written_is_told(small_recipe: dict, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made or written"):
        run(validate_recipe(small_recipe), tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["tpu", "cuda", "abacus"])
def test_a_device_that_is_not_there_is_told(small_recipe: dict, tmp_path: Path, name: str) -> None:
    import torch

    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    training = {**small_recipe["training"], "accelerator": name}
    with pytest.raises(RecipeError, match="Lightning cannot train with these settings"):
        run(validate_recipe({**small_recipe, "training": training}), tmp_path / "run", only=["control"])


def test_other_phantoms_than_the_recipe_names_are_refused(small_recipe: dict, tmp_path: Path) -> None:
    data = {
        "root": str(tmp_path / "films"),
        "labels": {"background": 0, "infection": 255},
        "image_size": 32,
        "channels": 1,
    }
    recipe = {**small_recipe, "data": {**data, "phantoms": {"cases": 12, "size": 32}}}
    run(validate_recipe(recipe), tmp_path / "a", only=["control"])
    more = {**recipe, "data": {**data, "phantoms": {"cases": 13, "size": 32}}}
    with pytest.raises(DataError, match="other data than the phantoms of the recipe"):
        run(validate_recipe(more), tmp_path / "b", only=["control"])


def test_training_without_validation_is_refused_in_words(small_recipe: dict, tmp_path: Path) -> None:
    data = {**small_recipe["data"], "split": {"rule": "random", "validation": 0.0, "test": 0.3}}
    with pytest.raises(DataError, match=r"no case validates[\s\S]*set `data.split.validation` above 0"):
        run(validate_recipe({**small_recipe, "data": data}), tmp_path / "run", only=["control"])
