"""A checkpoint of C2FVL, with all of its official names, becomes a package and the teacher of a report-free student."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from preceptor import cli
from preceptor.data.readers import read_image
from preceptor.delivery.package import load_package
from preceptor.pipeline import run
from preceptor.recipe import read_recipe
from preceptor.weights import convert

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "c2fvl_224.json"
FACTS = json.loads(GOLDEN.read_text(encoding="utf-8"))
THINNER = 8


def thin(shape: list[int]) -> list[int]:
    """The shape in an eighth of the width; the number of tokens (196) stays."""
    return [side // THINNER if side >= 64 and side % THINNER == 0 else side for side in shape]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 635 official tensors, an eighth as wide, as the original saves them."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in FACTS["state"]:
        values = torch.rand(thin(shape), generator=draw)
        state[key] = values + 0.5 if key.endswith("running_var") else (values - 0.5) / 4
    state |= {key: torch.tensor(3) for key, *_ in FACTS["buffers"]}
    assert len(state) == 635
    file = tmp_path_factory.mktemp("c2fvl") / "best_model-C2FVL.pth.tar"
    torch.save({"epoch": 7, "best_model": True, "model": "C2FVL", "state_dict": state, "val_loss": 0.1}, file)
    return file


@pytest.fixture(scope="module")
def package(checkpoint: Path) -> Path:
    """What the command makes of it."""
    out = checkpoint.with_name("teacher")
    arguments = ["preceptor", "import-weights", str(checkpoint), "--architecture", "c2fvl", "-o", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    return out


def test_the_package_prepares_pictures_as_the_original_does_and_drops_dead_branches(package: Path) -> None:
    found = load_package(package)
    assert found.needs == "attributes"
    assert found.segmentor["options"] == {"width": 8, "image_size": [224, 224]}
    assert found.card["imported"]["dropped_tensors"] == 635 - len(found.network.state_dict())
    card = (package / "README.md").read_text(encoding="utf-8")
    assert "eight coded attributes" in card
    assert "BERT" not in card
    Image.fromarray(np.full((20, 30, 3), (255, 51, 0), np.uint8)).save(package.parent / "red.png")
    prepared = found.preprocessing.apply(read_image(package.parent / "red.png"))
    assert prepared[:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_the_package_answers_on_red_green_blue_as_the_original_on_blue_green_red(
    package: Path, checkpoint: Path
) -> None:
    original = convert(torch.load(checkpoint, weights_only=True)["state_dict"], "c2fvl").network()
    image, facts = torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 3, 0, 1, 1, 0, 0, 1]]).repeat(2, 1)
    with torch.no_grad():
        wanted = original(image.flip(1), facts).logits
        found = load_package(package).network(image, facts).logits
    assert wanted.std() > 1e-4
    torch.testing.assert_close(found, wanted)


def test_an_imported_teacher_teaches_a_report_free_student(package: Path, tmp_path: Path) -> None:
    changes = [
        f"data.root={json.dumps(str(tmp_path / 'films'))}",
        "data.layout=folders",
        "data.phantoms={cases: 9, size: 32}",
        "data.labels={background: 0, infection: 255}",
        f"teacher.source={json.dumps(str(package))}",
        "student={name: c2fvl_free, options: {width: 8}}",
        "training.epochs=1",
        "seeds=[0]",
    ]
    run(read_recipe("c2fvl/published", changes), tmp_path / "run", only=["teacher", "student"])
    student = load_package(tmp_path / "run" / "student" / "seed-0" / "package")
    assert (student.needs, student.segmentor["condition"]) == ("none", None)
    assert "fitnet/decoder1" in (tmp_path / "run" / "student" / "seed-0" / "steps.csv").read_text(encoding="utf-8")
