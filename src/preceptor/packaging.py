"""The packages of a run: of each arm and seed, of a teacher that was trained elsewhere, and the one that is shipped."""

import shutil
from pathlib import Path
from typing import Any

from preceptor.delivery.package import load_package, save_package, update_card
from preceptor.errors import RecipeError, StorageError
from preceptor.learning.arm import Arm, build_network, check_same_view, preprocessing_of, segmentor_of
from preceptor.recipe import Recipe
from preceptor.storage import hash_file, read_json, read_tensors, write_json
from preceptor.text.features import ReportFeatures


def package_arm(folder: Path, recipe: Recipe, arm: Arm, seed: int, features: ReportFeatures | None) -> None:
    """Write the best state of one arm and seed as `folder/package`."""
    segmentor = segmentor_of(recipe, arm, features)
    segmentor.pop("pretrained")
    network = build_network(segmentor, seed)
    state, _ = read_tensors(folder / "best.safetensors")
    network.load_state_dict(state)
    done = read_json(folder / "done.json")
    card = {
        "name": recipe.name,
        "description": recipe.description,
        "arm": arm,
        "seed": seed,
        "validation": done["best"],
        "epochs": done["epochs"],
        "best_epoch": done["best_epoch"],
        "licence": recipe.data.licence,
        "source": recipe.data.source,
        "encoder": features.identity if arm == "teacher" and features else None,
        "recipe": recipe.plain(),
    }
    save_package(
        folder / "package",
        network,
        segmentor=segmentor,
        preprocessing=preprocessing_of(recipe),
        labels=recipe.data.labels,
        card=card,
    )


def is_packaged(folder: Path) -> bool:
    """Whether the package of an arm holds the end of its training, and not that of a shorter one before."""
    description = folder / "package" / "package.json"
    done = read_json(folder / "done.json")
    return description.is_file() and read_json(description)["card"].get("epochs") == done["epochs"]


def take_teacher(source: Path, target: Path, recipe: Recipe, seed: int, features: ReportFeatures | None) -> None:
    """Copy a teacher into `target`: of another run (same seed, else its first), or a package as it is.

    Raises StorageError where there is none, RecipeError where it would see something else than the recipe says.
    """
    candidates = [source / "teacher" / f"seed-{seed}" / "package", *sorted(source.glob("teacher/seed-*/package"))]
    found = next((place for place in [*candidates, source] if (place / "package.json").is_file()), None)
    if found is None:
        raise StorageError("neither a run with a trained teacher nor a package", where=source)
    package = load_package(found)
    check_same_view(recipe, package, found)
    wanted = "report" if features is not None else "none"
    if package.needs != wanted:
        raise RecipeError(
            "the named teacher is shown something else than the recipe says",
            where=found,
            found=package.needs,
            expected=wanted,
            remedy=f"set teacher.privilege={package.needs}",
        )
    encoder = package.card.get("encoder")
    if features is not None and encoder and encoder != features.identity:
        raise RecipeError(
            "the named teacher learned to read the features of another encoder",
            where=found,
            found=features.identity,
            expected=encoder,
            remedy="set the reports section to the teacher's encoder, revision, length and width",
        )
    if (target / "package").exists() and weights_hash(target / "package") == weights_hash(found):
        return
    _replace_folder(found, target / "package")
    write_json(target / "done.json", {"source": str(source), "best": package.card.get("validation")})


def ship(found: Path, target: Path, arm: dict[str, Any], gain: dict[str, Any] | None, cases: dict[str, int]) -> None:
    """Copy a package to `target` with the run's measured figures on its card."""
    _replace_folder(found, target)
    update_card(target, {"metrics": arm, "gain": gain, "cases": cases})


def weights_hash(package: Path) -> str:
    """SHA-256 of the file of weights."""
    return hash_file(package / "weights.safetensors")


def _replace_folder(source: Path, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
