"""Published checkpoints load by their own names; what is hostile, damaged or of another network is refused."""

import argparse
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from preceptor import weights
from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.originals.textguided import official_name
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition
from preceptor.storage import read_tensors, write_tensors

GOLDEN = Path(__file__).resolve().parent / "golden"
SHAPE = {"widths": [4, 8, 8, 16], "depths": [1, 2, 1, 1], "head_width": 6}
TEACHER = {**SHAPE, "report_tokens": [5, 4, 3]}


def official(architecture, seed=0):
    """A small network of ours, and its state dict as the original code would have written it."""
    torch.manual_seed(seed)
    name = weights.ARCHITECTURES[architecture].segmentor
    options = {**(TEACHER if name == "guided" else SHAPE), "deep_supervision": architecture != "languide"}
    if architecture == "languide":
        options["variant"] = "languide"
    network = zoo.build(name, in_channels=3, classes=2, condition=Condition("report", 7, 10), **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = network.state_dict()
    part = {"textfreekd-teacher": "textfreekd_teacher_224", "textfreekd-student": "textfreekd_student_224"}
    facts = json.loads((GOLDEN / f"{part.get(architecture, 'textfreekd_teacher_224')}.json").read_text())
    keys = [key for key, _ in facts["state"]] + [key for key, *_ in facts["buffers"]]
    state = {key: ours[official_name(key)] for key in keys if official_name(key) in ours}
    assert len(state) == len(ours)
    state["encoder.project_head.weight"] = torch.zeros(3, 3)
    state["text_encoder.model.bert.embeddings.position_ids"] = torch.zeros(1, 4, dtype=torch.int64)
    state["decoder16.guide_layer.vis_pos.pe"] = torch.zeros(1, 5000, 16)
    if architecture == "languide":
        for old, new in (("attn1", "attn"), ("attn_norm1", "attn_norm"), ("scale1", "scale")):
            state = {key.replace(old, new): value for key, value in state.items()}
    return network.eval(), state


def given(network):
    torch.manual_seed(1)
    report = () if network.condition is None else (torch.randn(1, 7, 10),)
    return (torch.randn(1, 3, 64, 32), *report)


@pytest.mark.parametrize(
    ("architecture", "prefix"),
    [
        ("textfreekd-teacher", "model."),
        ("textfreekd-teacher", "model_teacher."),
        ("textfreekd-student", "model_student."),
        ("textfreekd-student", ""),
        ("languide", "model."),
    ],
)
def test_a_lightning_checkpoint_of_the_original_answers_the_same(architecture, prefix, tmp_path):
    network, state = official(architecture)
    checkpoint = {
        "epoch": 3,
        "state_dict": {prefix + key: value for key, value in state.items()},
        "hyper_parameters": argparse.Namespace(lr=3e-4),
    }
    if prefix == "model_student.":
        checkpoint["state_dict"] |= {"model_teacher." + key: torch.zeros(1) for key in state}
    torch.save(checkpoint, tmp_path / "medseg.ckpt")
    out = tmp_path / "medseg.safetensors"
    imported = weights.import_weights(
        tmp_path / "medseg.ckpt", out, architecture=architecture, deep_supervision=architecture != "languide"
    )
    assert torch.equal(imported.network()(*given(network)).logits, network(*given(network)).logits)
    assert set(imported.dropped) == {
        "encoder.project_head.weight",
        "text_encoder.model.bert.embeddings.position_ids",
        "decoder16.guide_layer.vis_pos.pe",
    }
    assert imported.notes["transposed"] is True
    tensors, metadata = read_tensors(out)
    assert tensors.keys() == network.state_dict().keys()
    assert json.loads(metadata["segmentor"]) == imported.segmentor
    assert imported.segmentor["options"]["widths"] == SHAPE["widths"]


def test_safetensors_with_original_names_are_read_without_side_heads_by_default(tmp_path):
    network, state = official("textfreekd-student")
    write_tensors(tmp_path / "student.safetensors", state)
    imported = weights.import_weights(tmp_path / "student.safetensors", architecture="textfreekd-student")
    assert {"convds1.weight", "convds1.bias", "convds2.weight", "convds2.bias"} < set(imported.dropped)
    assert torch.equal(imported.network()(*given(network)).logits, network(*given(network)).logits)


def test_the_checkpoint_of_another_network_is_named():
    _, teacher = official("textfreekd-teacher")
    with pytest.raises(RecipeError, match=r"another network[\s\S]*found: +textfreekd-teacher"):
        weights.convert(teacher, "textfreekd-student")
    with pytest.raises(RecipeError, match="holds no network of the architecture languide"):
        weights.convert({"fc.weight": torch.zeros(2)}, "languide")
    with pytest.raises(RecipeError, match=r"no such architecture[\s\S]*textfreekd-student"):
        weights.import_weights("x.ckpt", architecture="textfreekd")


@pytest.mark.parametrize("architecture", weights.ARCHITECTURES)
def test_every_original_says_how_it_prepares_its_pictures(architecture):
    original = weights.ARCHITECTURES[architecture]
    assert original.segmentor in zoo.SEGMENTORS
    assert original.prefixes[-1] == ""
    assert original.notes["preprocessing"].keys() == {"size", "resize", "antialias", "normalize"}
    assert original.notes["preprocessing"]["normalize"] in ("zscore", "symmetric", "unit", "none", "volume_percentile")


def test_a_stem_is_summed_for_grey_images_and_answers_as_to_the_image_repeated():
    network, state = official("textfreekd-student")
    grey = weights.convert(state, "textfreekd-student", in_channels=1, deep_supervision=True)
    assert grey.segmentor["in_channels"] == 1
    image = torch.randn(1, 1, 64, 32)
    torch.testing.assert_close(
        grey.network()(image).logits, network(image.expand(-1, 3, -1, -1)).logits, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(RecipeError, match=r"another number of channels[\s\S]*expected: +4, or 1"):
        weights.convert(state, "textfreekd-student", in_channels=4)


def test_missing_unknown_and_misshapen_tensors_are_all_listed():
    _, state = official("textfreekd-student")
    del state["decoder8.guide_layer.norm1.bias"]
    state["decoder8.guide_layer.extra"] = torch.zeros(1)
    state["out.conv.conv.bias"] = torch.zeros(9)
    with pytest.raises(RecipeError) as error:
        weights.convert(state, "textfreekd-student")
    faults = "\n".join(error.value.offenders)
    assert "missing: decoder.stages.1.layer.self_norm.bias" in faults
    assert "not known: decoder.stages.1.guide_layer.extra" in faults
    assert "decoder.head.classify.bias: (9,) in place of (2,)" in faults
    del state["out.conv.conv.weight"]
    with pytest.raises(RecipeError, match="not a whole textfreekd-student"):
        weights.convert(state, "textfreekd-student")


class Hostile:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "torch-legacy", "pickle"])
def test_a_hostile_pickle_is_refused_and_never_runs(form, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "hostile.ckpt"
    content = {"state_dict": {"a": torch.zeros(2)}, "callback": Hostile(f"touch {mark}")}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(f"touch {mark}")))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UntrustedFileError, match="could run code; nothing of it was used") as error:
        weights.read_checkpoint(path)
    assert form == "pickle" or "it asks for posix.system" in str(error.value)
    assert "weights_only" not in str(error.value)
    assert not mark.exists()


def test_a_checkpoint_that_claims_far_more_than_it_holds_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "bomb.pth")
    with pytest.raises(StorageError, match=r"cannot be read[\s\S]*far more than the file holds"):
        weights.read_checkpoint(tmp_path / "bomb.pth")


def test_a_compressed_bomb_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2**10)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for member in plain.infolist():
            content = b"\0" * 2**24 if member.filename.endswith("data/0") else plain.read(member)
            bomb.writestr(member.filename, content, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 2**16
    with pytest.raises(StorageError, match="cannot be read"):
        weights.read_checkpoint(tmp_path / "bomb.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(content, tmp_path):
    (tmp_path / "damaged.ckpt").write_bytes(content)
    with pytest.raises(StorageError, match="remedy"):
        weights.read_checkpoint(tmp_path / "damaged.ckpt")
    with pytest.raises(StorageError, match="does not exist"):
        weights.read_checkpoint(tmp_path / "absent.ckpt")


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    torch.save({"state_dict": {"a": 1}}, tmp_path / "none.ckpt")
    with pytest.raises(StorageError, match="holds no tensors"):
        weights.read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of resources are a matter of Linux")
def test_the_reading_process_is_bounded():
    program = (
        "import resource; from preceptor.unpickle import _bound; _bound(1000);"
        "print([resource.getrlimit(getattr(resource, 'RLIMIT_' + k))[0] for k in ('CPU', 'FSIZE', 'NPROC', 'AS')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, written, children, memory = json.loads(done.stdout)
    assert (seconds, written, children) == (900, 5000 + 2**24, 0)
    assert 2 * 2**30 < memory < 2**40
