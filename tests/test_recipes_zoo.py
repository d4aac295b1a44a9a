"""The recipes of the zoo hold the published values and run on folders of their data sets' layouts."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from preceptor.distillers.zoo import PRESETS
from preceptor.learning.arm import check_arms
from preceptor.pipeline import run
from preceptor.recipe import read_recipe, shipped_recipes

from .published_folders import acdc, nnunet, ssl4mis, synapse

NETWORKS = (
    *("fcn_r18", "fcn_r50", "unet_r18", "unet_r50", "attention_unet"),
    *("mednext", "missformer", "transunet", "swin_unetr"),
)
DISTILLERS = ("kd", "at", "dkd", "dist", "cwd", "review")
OWN = ("missformer", "transunet", "swin_unetr")
"""Networks that are trained otherwise than mmseg-kd's convolutional ones."""

SMALL = [
    "data.image_size=64",
    "student.size=tiny",
    "training.batch_size=4",
    "training.epochs=1",
    "training.min_epochs=1",
    "training.validate_every=1",
    "evaluate.bootstrap=100",
]
"""What makes a recipe one of seconds: sizes and epochs; nothing of its method."""

TAUGHT = [*SMALL, "teacher.segmentor.size=tiny", "teacher.training.epochs=1", "teacher.training.validate_every=1"]

each_network = pytest.mark.parametrize("network", NETWORKS)
each_set = pytest.mark.parametrize("data", ["synapse", "acdc"])


def trained(name: str, root: Path, out: Path, *changes: str, small: list[str] = SMALL, **options: Any) -> Any:
    """What a run of the recipe leaves, and the rows of its last arm's steps."""
    outcome = run(read_recipe(name, [*small, f"data.root={json.dumps(str(root))}", *changes]), out, **options)
    with open(out / outcome_arm(out) / "seed-0" / "steps.csv", encoding="utf-8") as file:
        return outcome, list(csv.DictReader(file))


def outcome_arm(out: Path) -> str:
    return "student" if (out / "student").exists() else "control"


@each_set
@each_network
def test_every_network_has_a_recipe_at_its_published_size(network, data):
    recipe = read_recipe(f"zoo/{data}/{network}")
    assert (recipe.student.name, recipe.student.size, recipe.student.pretrained) == (network, "base", None)
    assert (recipe.teacher, recipe.distill, recipe.data.channels) == (None, [], 1)
    assert recipe.data.normalize == ("symmetric" if network == "missformer" else "none")
    assert len(recipe.data.labels) == {"synapse": 9, "acdc": 4}[data]
    sides = {"synapse": 512, "acdc": 256}
    assert recipe.data.size[0] == (224 if network in ("transunet", "missformer") else sides[data])


@each_set
@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in OWN])
def test_the_convolutional_networks_are_trained_as_in_mmseg_kd(network, data):
    found = read_recipe(f"zoo/{data}/{network}").training
    assert (found.optimizer, found.lr, found.momentum, found.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
    assert (found.schedule, found.min_lr, found.batch_size, found.warmup_epochs) == ("poly", 1e-4, 2, 0.0)
    assert found.loss == ("flat_dice_ce" if network == "unet_r50" else "foreground_dice_ce")
    sides = network in ("unet_r18", "attention_unet")
    assert found.loss_weights == pytest.approx([4 / 7, 1 / 7] if sides else [1.0], abs=1e-4)
    steps = found.epochs * (995 if data == "synapse" else 656)
    assert steps == pytest.approx(40_000, rel=0.01)


@each_set
def test_the_transformers_are_trained_as_their_authors_did(data):
    own = {network: read_recipe(f"zoo/{data}/{network}").training for network in OWN}
    transunet, missformer, swin = own["transunet"], own["missformer"], own["swin_unetr"]
    for found, lr in ((transunet, 0.01), (missformer, 0.05)):
        assert (found.optimizer, found.lr, found.momentum, found.weight_decay) == ("sgd", lr, 0.9, 1e-4)
        assert (found.schedule, found.min_lr, found.batch_size) == ("poly", 0, 24)
    assert (transunet.loss, missformer.loss, swin.loss) == ("transunet", "missformer", "foreground_dice_ce")
    assert (swin.optimizer, swin.lr, swin.weight_decay, swin.schedule) == ("adamw", 2e-4, 1e-5, "cosine")
    assert swin.warmup_epochs * (995 if data == "synapse" else 656) == pytest.approx(500, abs=5)
    assert data == "acdc" or (transunet.epochs, missformer.epochs) == (150, 400)


@pytest.mark.parametrize("name", DISTILLERS)
def test_the_distillers_have_the_settings_and_weights_of_mmseg_kd(name):
    recipe = read_recipe(f"zoo/distill/{name}")
    (part,) = recipe.distill
    assert (part.name, part.preset, part.weight) == (name, "mmseg-kd", PRESETS["mmseg-kd"][name].weight)
    assert (part.options, part.warmup, part.decay) == ({}, 0.0, 0.0)
    teacher = "transunet" if name == "dkd" else "fcn_r50"
    assert (recipe.segmentor_of("teacher").name, recipe.student.name) == (teacher, "fcn_r18")
    student, frozen = recipe.training_of("student"), recipe.training_of("teacher")
    assert (student.epochs, frozen.epochs) == (20 if name == "dkd" else 80, 40)
    assert student.loss == frozen.loss == "foreground_dice_ce"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("zoo/synapse/fcn_r50", ["student.options.auxiliary=true", "training.loss_weights=[0.5,0.5]"]),
        ("zoo/synapse/mednext", ["student.options.variant=L", "student.options.kernel_size=5"]),
        ("zoo/synapse/swin_unetr", ["student.size=small", "training.lr=4e-4"]),
        ("zoo/synapse/transunet", ["data.image_size=512", "student.options.image_size=512", "training.batch_size=2"]),
        ("zoo/synapse/missformer", ["data.image_size=512"]),
        ("zoo/acdc/fcn_r18", ["data.layout=acdc", "data.normalize=volume_percentile", "data.split.validation=0.1"]),
    ],
    ids=lambda value: value.split("/")[-1] if isinstance(value, str) else "",
)
def test_the_variants_that_comments_name_can_be_built(name, changes):
    comment = shipped_recipes()[name].read_text(encoding="utf-8") + shipped_recipes()["zoo/acdc"].read_text()
    told = [change for change in changes if f"--set {change}" in comment]
    assert told == changes or name == "zoo/synapse/missformer"
    check_arms(read_recipe(name, changes))


FAST = (("transunet", "synapse"), ("unet_r18", "acdc"))
RUNS = [
    pytest.param(network, data, marks=[] if (network, data) in FAST else [pytest.mark.slow])
    for network in NETWORKS
    for data in ("synapse", "acdc")
]


@pytest.mark.parametrize(("network", "data"), RUNS)
def test_a_network_is_trained_on_the_layout_of_its_recipe(network, data, tmp_path):
    root = (synapse if data == "synapse" else ssl4mis)(tmp_path / "data")
    _, rows = trained(f"zoo/{data}/{network}", root, tmp_path / "run", only=["control"])
    assert len(rows) == {"synapse": 2, "acdc": 11}[data]
    assert all(0 < float(row["loss"]) < 10 for row in rows)


@pytest.mark.slow
@each_network
def test_a_network_is_trained_on_the_raw_data_of_nnunet(network, tmp_path):
    labels = 'data.labels={background: 0, "left atrium": 1, wall: 2}'
    changes = ["data.layout=nnunet", "data.normalize=volume_zscore", labels, "data.split.validation=0.25"]
    _, rows = trained(f"zoo/acdc/{network}", nnunet(tmp_path / "data"), tmp_path / "run", *changes, only=["control"])
    assert len(rows) == 3
    assert all(0 < float(row["loss"]) < 10 for row in rows)


@pytest.mark.slow
def test_acdc_is_read_from_its_own_folders_by_the_changes_that_its_comment_names(tmp_path):
    comment = shipped_recipes()["zoo/acdc"].read_text(encoding="utf-8")
    changes = ["data.layout=acdc", "data.normalize=volume_percentile", "data.split.validation=0.1"]
    assert all(f"--set {change}" in comment for change in changes)
    outcome, _ = trained("zoo/acdc/unet_r18", acdc(tmp_path / "data"), tmp_path / "run", *changes)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert outcome.report is not None
    assert summary["unit"] == "mm"
    assert summary["scored"] == "volume"


@pytest.mark.parametrize(
    "name", [name if name == "kd" else pytest.param(name, marks=pytest.mark.slow) for name in DISTILLERS]
)
def test_a_distiller_is_run_from_files_to_report(name, tmp_path):
    changes = ["distill.0.options.mid=16"] if name == "review" else []
    outcome, rows = trained(f"zoo/distill/{name}", synapse(tmp_path / "data"), tmp_path / "run", *changes, small=TAUGHT)
    assert outcome.report is not None
    terms = [key for key in rows[0] if key.partition("/")[0] == name]
    assert len(terms) == (4 if name in ("at", "review") else 1), rows[0]
    assert all(float(row[term]) >= 0 for row in rows for term in terms)
    with open(tmp_path / "run" / "student" / "cases.csv", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert len(scored) == 2 * 8, "two scans, eight organs"
