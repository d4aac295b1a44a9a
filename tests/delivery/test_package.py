"""What is saved is what is loaded, whole or not at all."""

import shutil
from pathlib import Path

import pytest
import torch

from preceptor import storage
from preceptor.data.transforms import Preprocessing
from preceptor.delivery import package as package_module
from preceptor.delivery.package import load_package, save_package, update_card
from preceptor.errors import StorageError, UserError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition

LABELS = {"background": 0, "left": [1, 3], "right": 2}
SEGMENTOR = {"name": "unguided", "size": "tiny", "options": {}, "in_channels": 1, "classes": 3, "condition": None}
PREPROCESSING = Preprocessing((64, 32), 1, "bilinear", False, "unit")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return zoo.build("unguided", in_channels=1, classes=3, size="tiny")


def save(folder: Path, network, **changes) -> Path:
    content = {"segmentor": SEGMENTOR, "preprocessing": PREPROCESSING, "labels": LABELS, "card": {"name": "one"}}
    return save_package(folder, network, **{**content, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory, network) -> Path:
    return save(tmp_path_factory.mktemp("packages") / "package", network)


def test_loaded_network_is_the_saved_one_in_eval_mode(saved, network):
    package = load_package(saved)
    image = torch.randn(2, 1, 64, 32)
    with torch.no_grad():
        assert torch.equal(package.network(image).logits, network.eval()(image).logits)
    assert not any(module.training for module in package.network.modules())


def test_everything_else_comes_back_too(saved):
    package = load_package(saved)
    assert package.preprocessing == PREPROCESSING
    assert list(package.labels.items()) == list(LABELS.items())
    assert package.segmentor == SEGMENTOR
    assert (package.card, package.needs) == ({"name": "one"}, "none")
    assert package.identity == storage.hash_file(saved / "weights.safetensors")


def test_package_holds_three_files_and_nothing_that_executes(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "package.json", "weights.safetensors"]


def test_report_guided_package_says_what_it_needs(tmp_path):
    condition = Condition("report", 6, 8)
    network = zoo.build("guided", in_channels=1, classes=3, size="tiny", condition=condition)
    folder = save(tmp_path / "package", network, segmentor={**SEGMENTOR, "name": "guided", "condition": condition})
    package = load_package(folder)
    assert package.needs == "report"
    assert package.network.condition == condition


def test_zip_of_a_package_loads_with_and_without_its_folder(saved, tmp_path):
    inside = shutil.make_archive(str(tmp_path / "inside"), "zip", saved)
    around = shutil.make_archive(str(tmp_path / "around"), "zip", saved.parent, saved.name)
    for archive in (inside, around):
        assert load_package(archive).identity == load_package(saved).identity


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_package(saved)
    assert torch.equal(torch.rand(3), expected)


def test_loading_does_not_fetch_pretrained_weights(tmp_path, network):
    options = {"pretrained": "some/model"}
    folder = save(tmp_path / "package", network, segmentor={**SEGMENTOR, "options": options})
    assert load_package(folder).segmentor["options"] == {}


def test_failed_save_leaves_the_old_package(tmp_path, network, monkeypatch):
    folder = save(tmp_path / "package", network)

    def fail(_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(package_module, "render_card", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        save(folder, network, card={"name": "two"})
    assert load_package(folder).card == {"name": "one"}
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_newer_package_replaces_an_older_one(tmp_path, network):
    folder = save(tmp_path / "package", network)
    (folder / "note.txt").write_text("of the older")
    save(folder, network, card={"name": "two"})
    assert load_package(folder).card == {"name": "two"}
    assert not (folder / "note.txt").exists()


def test_folder_with_other_files_is_never_replaced(tmp_path, network):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(StorageError, match="nothing that may be replaced"):
        save(tmp_path, network)
    assert (tmp_path / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"segmentor": {**SEGMENTOR, "size": "small"}}, "the weights do not fit the segmentor unguided"),
        ({"segmentor": {**SEGMENTOR, "name": "guidd"}}, "a segmentor that this version does not have"),
        ({"segmentor": {**SEGMENTOR, "options": {"depht": 1}}}, "a segmentor that this version does not have"),
        ({"segmentor": {**SEGMENTOR, "sice": 1}}, "segmentor.sice: unknown key; did you mean size?"),
        ({"labels": {"background": 0, "lesion": 1}}, "2 labels for 3 classes"),
        ({"preprocessing": Preprocessing((50, 32), 1)}, "sides divisible by 32"),
        ({"preprocessing": Preprocessing((64, 32), 3)}, "found:    3 channels"),
    ],
)
def test_description_that_would_not_load_is_not_saved(tmp_path, network, changes, reason):
    with pytest.raises(UserError) as caught:
        save(tmp_path / "package", network, **changes)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    network = zoo.build("unguided", in_channels=1, classes=3, size="tiny")
    name, parameter = next(iter(network.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")
    with pytest.raises(StorageError, match="not finite") as caught:
        save(tmp_path / "package", network)
    assert caught.value.offenders == (name,)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_added_to_the_card_afterwards(tmp_path, network):
    folder = save(tmp_path / "package", network)
    update_card(folder, {"metrics": {"dice": {"mean": 0.8123, "low": 0.7, "high": 0.9}}})
    package = load_package(folder)
    assert package.card["name"] == "one"
    assert package.card["metrics"]["dice"]["mean"] == 0.8123
    assert "| Dice | 0.8123 [0.7000, 0.9000] |" in (folder / "README.md").read_text()


def test_card_does_not_tell_the_folders_of_the_machine(tmp_path, network):
    taught = {"source": "/secret", "segmentor": {"name": "textdiff", "options": {"diffusion": "/home/jane/unet"}}}
    recipe = {
        "name": "a",
        "data": {"root": "/home/jane/patients", "labels": {"crown": 0, "root": 1}, "source": "a paper"},
        "student": {"pretrained": "/home/jane/resnet.safetensors"},
        "teacher": taught,
        "teachers": {"one": taught},
        "control": {"source": "/secret"},
        "reports": {"features": "/home/jane/features", "encoder": "/home/jane/bert"},
        "evaluate": {"elsewhere": {"there": {"root": "/home/jane/others"}}},
    }
    folder = save(tmp_path / "package", network, card={"recipe": recipe})
    text = (folder / "package.json").read_text() + (folder / "README.md").read_text()
    assert "jane" not in text
    assert "secret" not in text
    told = load_package(folder).card["recipe"]
    assert told["data"] == {"root": "", "labels": {"crown": 0, "root": 1}, "source": "a paper"}
    assert told["reports"]["encoder"] == "bert"


def test_run_folder_in_place_of_its_package_is_answered_with_the_package(saved):
    with pytest.raises(StorageError, match="this is no package") as caught:
        load_package(saved.parent)
    assert str(saved) in str(caught.value)
