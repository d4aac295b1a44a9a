"""A checkpoint of TextDiff's classifier becomes a package together with the U-Net that it reads."""

import json
from pathlib import Path

import pytest
import torch

from preceptor.delivery.imports import import_package
from preceptor.delivery.package import load_package
from preceptor.errors import RecipeError
from preceptor.originals.textdiff import official_name
from preceptor.segmentors.base import Condition
from preceptor.segmentors.diffusion import DiffusionShape, diffusion_unet, write_diffusion
from preceptor.segmentors.textdiff import TextDiff
from preceptor.storage import write_tensors

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "textdiff_classifier_monuseg.json").read_text())
SHAPE = DiffusionShape(32, widths=(8, 8, 8, 16), layers=1, attention=(3,), head_width=8, groups=4, learn_sigma=False)
BLOCKS = [0, 2, 4, 6]


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "unet.safetensors"
    write_diffusion(path, SHAPE, diffusion_unet(SHAPE).state_dict())
    return path


def test_an_imported_classifier_answers_as_the_original_and_reads_its_u_net(tmp_path: Path, unet: Path) -> None:
    options = {"diffusion": str(unet), "blocks": BLOCKS, "width": 32, "decoder_widths": (8, 4), "heads": 2}
    network = TextDiff(3, 2, condition=Condition("report", 10, 768), bgr=True, **options).eval()
    ours = network.state_dict()
    named = {key: official_name(key) for key, *_ in [*KEYS["state"], *KEYS["buffers"]]}
    assert set(named.values()) == set(ours)
    write_tensors(tmp_path / "best.safetensors", {f"module.{key}": ours[name] for key, name in named.items()})
    with pytest.raises(RecipeError, match=r"not the whole network[\s\S]*--option diffusion=FILE"):
        import_package(tmp_path / "best.safetensors", tmp_path / "package", "textdiff")
    own = {"diffusion": str(unet), "blocks": BLOCKS}
    place = import_package(tmp_path / "best.safetensors", tmp_path / "package", "textdiff", own)
    package = load_package(place)
    assert "Bio_ClinicalBERT" in package.card["description"]
    assert package.needs == "report"
    image, report = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 10, 768)
    assert torch.equal(package.network(image, report).logits, network(image, report).logits)
