"""The page on one's own networks works as it is written, block by block."""

import tomllib
from pathlib import Path

import pytest
import torch

from preceptor import plainyaml
from preceptor.delivery.package import load_package
from preceptor.distillers import zoo as distillers
from preceptor.segmentors import zoo

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "own-network.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return [part.partition("```")[0] for part in PAGE.split(f"```{language}\n")[1:]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_recipe: dict) -> dict:
    """What stands in Python after every block has run, the recipe's folder being that of the small data."""
    recipe = plainyaml.parse(blocks("yaml")[1]) | {
        key: small_recipe[key] for key in ("data", "reports", "training", "evaluate")
    }
    recipe["teacher"]["segmentor"]["size"] = "tiny"
    (tmp_path / "plain.yaml").write_text(plainyaml.render(recipe), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "own_network"}
    before = dict(zoo.SEGMENTORS)
    try:
        for text in blocks("python"):
            exec(compile(text, "own-network.md", "exec"), names)
        yield names
    finally:
        zoo.SEGMENTORS.clear()
        zoo.SEGMENTORS.update(before)


def test_every_python_block_runs_and_the_student_is_shipped(own: dict) -> None:
    package = load_package(own["outcome"].folder / "package")
    assert type(package.network.network).__name__ == "Plain"
    assert [tap.name for tap in package.network.taps] == ["early", "late", "logits"]
    assert ("plain", "Two convolutions at half the size.") in zoo.describe()


def test_recipe_of_a_monai_network_makes_a_student_that_distils() -> None:
    recipe = plainyaml.parse(blocks("yaml")[0])
    student = zoo.build("monai", in_channels=1, classes=2, **recipe["student"]["options"])
    assert [(tap.name, tap.stride, tap.group) for tap in student.taps] == [
        ("deep", 4, "encoder"),
        ("late", 1, "decoder"),
    ]
    [part] = recipe["distill"]
    teacher = zoo.build("unguided", in_channels=1, classes=2, size="tiny")
    distiller = distillers.build(part["name"], student_taps=student.taps, teacher_taps=teacher.taps, taps=part["taps"])
    image = torch.randn(2, 1, 64, 64)
    losses = distiller(student(image), teacher(image))
    assert all(loss.isfinite() for loss in losses.values())


def test_package_of_networks_is_found_by_its_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = blocks("python")
    own = [next(text for text in python if start in text) for start in ("class Plain", "def plain")]
    loss = "from preceptor.distillers.logits import PixelKL\n\nclass MyLoss(PixelKL):\n    pass\n"
    (tmp_path / "my_networks.py").write_text("\n".join([*own, loss]).replace('SEGMENTORS["plain"] = plain', ""))
    facts = tmp_path / "my_networks-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my_networks\nVersion: 1.0\n")
    groups = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert zoo.build("plain", in_channels=3, classes=4, size="tiny").taps[0].channels == 8
    assert ("plain", "of an installed package") in zoo.describe()
    assert type(distillers.build("my_loss", student_taps=(), teacher_taps=())).__name__ == "MyLoss"
