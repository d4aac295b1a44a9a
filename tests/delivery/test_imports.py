"""An imported checkpoint answers as the original does, which transposes every picture: once, not never, not twice."""

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from preceptor import cli, weights
from preceptor.data.readers import read_image
from preceptor.delivery.imports import ARCHITECTURES, import_package
from preceptor.delivery.package import load_package
from preceptor.delivery.predict import segment
from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.originals.textguided import official_name
from preceptor.pipeline import run
from preceptor.recipe import validate_recipe
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition
from preceptor.storage import write_tensors

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SHAPE = {"widths": [4, 8, 8, 16], "depths": [1, 2, 1, 1], "head_width": 6}
PREFIX = {"textfreekd-teacher": "model.", "textfreekd-student": "model_student.", "languide": "model."}


@pytest.fixture(scope="module")
def fill():
    """The rule by which the golden cases make every tensor from its name."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(architecture):
    """A small network as the original trains it: on the arrays it is given, without any transposition."""
    name = weights.ARCHITECTURES[architecture].segmentor
    options = {**SHAPE}
    if name == "guided":
        options |= {"report_tokens": [5, 4, 3]}
    if architecture == "languide":
        options |= {"variant": "languide"}
    return zoo.build(name, in_channels=3, classes=2, condition=Condition("report", 7, 10), **options)


@pytest.fixture
def official(fill, tmp_path):
    """Makes the original's network and writes its checkpoint: official(architecture) -> (network, file).

    As safetensors, which need no other process to read; pickled=True as the original's Lightning writes it.
    """

    def make(architecture, pickled=False):
        network = small(architecture)
        facts = json.loads((GOLDEN / "textfreekd_teacher_224.json").read_text())
        if architecture == "textfreekd-student":
            facts = json.loads((GOLDEN / "textfreekd_student_224.json").read_text())
        ours = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        named = {key: official_name(key) for key in [key for key, *_ in [*facts["state"], *facts["buffers"]]]}
        state = {
            key: torch.tensor(0) if name.endswith("num_batches_tracked") else torch.tensor(fill.tensor(key, ours[name]))
            for key, name in named.items()
            if name in ours
        }
        network.load_state_dict({named[key]: tensor for key, tensor in state.items()})
        if architecture == "languide":
            for old, new in (("attn1", "attn"), ("attn_norm1", "attn_norm"), ("scale1", "scale")):
                state = {key.replace(old, new): tensor for key, tensor in state.items()}
        state["encoder.project_head.weight"] = torch.zeros(2, 2)
        state = {PREFIX[architecture] + key: tensor for key, tensor in state.items()}
        file = tmp_path / "medseg.ckpt"
        if pickled:
            torch.save({"epoch": 7, "state_dict": state}, file)
        else:
            write_tensors(file, state)
        return network.eval(), file

    return make


@pytest.fixture
def film(tmp_path):
    """A picture that its transpose cannot be taken for: 40 rows, 72 columns, a bright bar on the left."""
    pixels = np.random.default_rng(3).integers(0, 120, (40, 72), dtype=np.uint8)
    pixels[5:35, 4:14] += 120
    path = tmp_path / "film.png"
    Image.fromarray(pixels).save(path)
    return path


def original_probability(network, path, report):
    """The original chain: the picture as (width, height), bicubic, z-score, the network; back to rows by columns."""
    stored = torch.tensor(np.asarray(Image.open(path)), dtype=torch.float32)
    image = F.interpolate(stored.T[None, None], (224, 224), mode="bicubic", align_corners=False).expand(1, 3, -1, -1)
    image = (image - image.mean()) / image.std(correction=0)
    with torch.no_grad():
        logits = network(image, *([] if report is None else [report])).logits
    if logits.shape[1] == 1:
        foreground = logits.sigmoid()
    else:
        foreground = logits.softmax(1)[:, 1:]
    return foreground[0, 0].T


@pytest.mark.parametrize("architecture", list(PREFIX))
def test_an_imported_network_answers_as_the_original_chain(architecture, official, film, tmp_path):
    network, checkpoint = official(architecture)
    package = load_package(import_package(checkpoint, tmp_path / "package", architecture))
    report = None if package.needs == "none" else torch.randn(1, 7, 10, generator=torch.Generator().manual_seed(0))
    expected = original_probability(network, film, report)
    assert expected.std() > 1e-3, "a flat answer would prove nothing"

    prepared = package.preprocessing.apply(read_image(film))
    found = package.network(prepared[None], report).logits
    foreground = found.sigmoid()[0, 0] if found.shape[1] == 1 else found.softmax(1)[0, 1]
    torch.testing.assert_close(foreground, expected, rtol=0, atol=1e-5)

    (whole,) = segment(package.network, package.preprocessing, read_image(film), report)
    at_home = F.interpolate(expected[None, None], (40, 72), mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(whole[1], at_home[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("classes", "named"), [(9, "gallbladder"), (3, "class 2")])
def test_a_network_of_the_zoo_becomes_a_package_with_its_labels(classes, named, fill, film, tmp_path):
    facts = json.loads((GOLDEN / "unet_r18_128.json").read_text())
    shapes = zoo.build("unet_r18", in_channels=3, classes=classes, width=4, auxiliary=True).state_dict()
    named_here = weights.ARCHITECTURES["unet"].rename
    state = {key: fill.tensor(key, shapes[next(iter(named_here({key: None})[0]))].shape) for key, _ in facts["state"]}
    write_tensors(tmp_path / "unet.safetensors", {key: torch.tensor(value) for key, value in state.items()})
    package = load_package(import_package(tmp_path / "unet.safetensors", tmp_path / "package", "unet"))
    assert list(package.labels)[2] == named
    assert len(package.labels) == classes
    assert package.preprocessing.size == (512, 512)
    assert "smallest value" in package.card["imported"]["remarks"]
    (whole,) = segment(package.network, package.preprocessing, read_image(film))
    assert whole.shape == (classes, 40, 72)


def test_a_pickled_backbone_becomes_a_file_that_a_network_starts_from(tmp_path):
    network = zoo.build("fcn_r18", in_channels=3, classes=2, width=4)
    torch.save({"state_dict": network.backbone.state_dict()}, tmp_path / "resnet18_v1c.pth")
    file = import_package(tmp_path / "resnet18_v1c.pth", tmp_path / "resnet18.safetensors", "backbone")
    other = zoo.build("unet_r18", in_channels=1, classes=2, width=4, pretrained=str(file))
    assert torch.equal(other.backbone.layer4[1].conv2.weight, network.backbone.layer4[1].conv2.weight)


def test_the_features_of_an_imported_teacher_lie_as_its_picture(official, film, tmp_path):
    network, checkpoint = official("textfreekd-teacher")
    package = load_package(import_package(checkpoint, tmp_path / "package", "textfreekd-teacher"))
    image, report = torch.randn(1, 3, 64, 96), torch.randn(1, 7, 10)
    with torch.no_grad():
        expected, found = network(image.transpose(2, 3), report), package.network(image, report)
    for tap in package.network.taps:
        torch.testing.assert_close(found.features[tap.name], expected.features[tap.name].transpose(2, 3))


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["preceptor", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_student_goes_from_checkpoint_to_masks_by_command(official, film, tmp_path, monkeypatch, capsys):
    network, checkpoint = official("textfreekd-student", pickled=True)
    package, masks = tmp_path / "student", tmp_path / "masks"
    arguments = ("import-weights", checkpoint, "-o", package, "--architecture", "textfreekd-student")
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.strip() == str(package)
    assert command("predict", package, film, "-o", masks, "-q", monkeypatch=monkeypatch) == 0
    probability = original_probability(network, film, None)[None, None]
    expected = F.interpolate(probability, (40, 72), mode="bilinear", align_corners=False, antialias=True)[0, 0] > 0.5
    found = np.asarray(Image.open(masks / "film.png"))
    assert set(np.unique(found)) == {0, 255}
    assert ((found == 255) == expected.numpy()).mean() > 0.999  # pixels at 0.5 may fall to either side


def test_the_card_says_where_a_teacher_comes_from_and_what_it_reads(official, tmp_path):
    _, checkpoint = official("textfreekd-teacher")
    package = load_package(import_package(checkpoint, tmp_path / "package", "textfreekd-teacher"))
    assert package.needs == "report"
    assert package.labels == {"background": 0, "foreground": 255}
    assert package.preprocessing.to_dict() == {
        "size": [224, 224],
        "channels": 3,
        "resize": "bicubic",
        "antialias": False,
        "normalize": "zscore",
    }
    assert package.card["imported"]["file"] == "medseg.ckpt"
    assert len(package.card["imported"]["sha256"]) == 64
    text = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    for words in ("TextFreeKD", "medseg.ckpt", "BiomedVLP-CXR-BERT-specialized", "24 tokens"):
        assert words in text
    assert str(tmp_path) not in text


def test_an_imported_teacher_teaches_a_new_student(official, small_recipe, tmp_path):
    """Its features lie as the student's do, since both are shown row-major pictures."""
    _, checkpoint = official("textfreekd-teacher")
    source = import_package(checkpoint, tmp_path / "teacher", "textfreekd-teacher")
    data = {**small_recipe["data"], "image_size": 224, "channels": 3, "antialias": False}
    recipe = {
        **small_recipe,
        "data": data,
        "reports": {"length": 7, "width": 10},
        "teacher": {**small_recipe["teacher"], "source": str(source)},
        "student": {"name": "unguided", "size": "tiny", "options": SHAPE},
        "training": {**small_recipe["training"], "epochs": 1},
    }
    run(validate_recipe(recipe), tmp_path / "run", only=["teacher", "student"])
    package = load_package(tmp_path / "run" / "student" / "seed-0" / "package")
    assert package.needs == "none"
    assert package.segmentor["options"].get("transposed", False) is False
    begun = (tmp_path / "run" / "student" / "seed-0" / "steps.csv").read_text(encoding="utf-8")
    assert "token_l1/guide32" in begun


def test_a_student_package_says_nothing_of_an_encoder(official, tmp_path):
    _, checkpoint = official("textfreekd-student")
    package = load_package(import_package(checkpoint, tmp_path / "package", "textfreekd-student"))
    assert package.needs == "none"
    assert "BERT" not in json.dumps(package.card)


def test_a_text_encoder_becomes_a_folder_that_a_recipe_may_name(tmp_path, monkeypatch, capsys):
    source = tmp_path / "clinical"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "vocab.txt").write_text("[PAD]\n")
    torch.save({"bert.embeddings.word_embeddings.weight": torch.ones(3, 2)}, source / "pytorch_model.bin")
    out = tmp_path / "safe"
    arguments = ("import-weights", source / "pytorch_model.bin", "--architecture", "text-encoder", "--out", out)
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]


def test_an_unknown_architecture_names_all_that_there_are(tmp_path):
    with pytest.raises(RecipeError, match="no such architecture") as error:
        import_package(tmp_path / "x.ckpt", tmp_path / "out", "resnet")
    for name in ARCHITECTURES:
        assert name in str(error.value)


def test_a_refused_checkpoint_leaves_no_package(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UntrustedFileError):
        import_package(tmp_path / "x.ckpt", tmp_path / "out", "languide")
    assert not (tmp_path / "out").exists()


def test_another_folder_is_never_replaced(official, tmp_path):
    _, checkpoint = official("textfreekd-student")
    out = tmp_path / "thesis"
    write_tensors(out / "precious.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(StorageError, match="nothing that may be replaced"):
        import_package(checkpoint, out, "textfreekd-student")
    assert (out / "precious.safetensors").exists()
