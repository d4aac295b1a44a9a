"""The packages of a run: of each arm and seed, of a teacher that was trained elsewhere, and the one that is shipped."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preceptor.delivery.package import Package, load_package, save_package, update_card
from preceptor.errors import DataError, RecipeError, StorageError
from preceptor.evaluation.scores import read_rows
from preceptor.learning.arm import build_network, check_same_view, preprocessing_of, segmentor_of
from preceptor.learning.privilege import Reader
from preceptor.recipe import Recipe, SegmentorRecipe, validate_recipe
from preceptor.resuming import differences, is_among
from preceptor.segmentors import zoo as segmentors
from preceptor.storage import hash_file, read_json, read_tensors, write_bytes, write_json, write_text


def package_arm(folder: Path, recipe: Recipe, arm: str, seed: int, reader: Reader | None) -> None:
    """Write the best state of one arm and seed as `folder/package`."""
    segmentor = segmentor_of(recipe, arm, reader)
    segmentor.pop("pretrained")
    network = build_network(segmentor, seed)
    state, _ = read_tensors(folder / "best.safetensors")
    network.load_state_dict(state)
    segmentor["options"] |= network.pinned()
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
        "encoder": reader.identity if reader else None,
        "recipe": recipe.plain(),
    }
    save_package(
        folder / "package",
        network,
        segmentor=segmentor,
        preprocessing=preprocessing_of(recipe),
        labels=recipe.data.labels,
        card=card,
        needs=recipe.privilege_of(arm),
    )


def is_packaged(folder: Path) -> bool:
    """Whether the package of an arm holds the end of its training, and not that of a shorter one before."""
    description = folder / "package" / "package.json"
    done = read_json(folder / "done.json")
    return description.is_file() and read_json(description)["card"].get("epochs") == done["epochs"]


def take_teacher(source: Path, target: Path, recipe: Recipe, arm: str, seed: int, reader: Reader | None) -> None:
    """Copy the teacher of an arm into `target`: of another run (same seed, else its first), or a package as it is.

    Raises StorageError where there is none, RecipeError where there are several of other names, or where it is another
    network or would see something else than the recipe says.
    """
    found = _find_teacher(source, arm, seed)
    package = load_package(found)
    check_same_view(recipe, package, found)
    _require_same_network(package, recipe.segmentor_of(arm), found)
    wanted = recipe.privilege_of(arm)
    if package.needs != wanted:
        raise RecipeError(
            "the named teacher is shown something else than the recipe says",
            where=found,
            found=package.needs,
            expected=wanted,
            remedy=f"set teacher.privilege={package.needs}",
        )
    encoder = package.card.get("encoder")
    if reader is not None and encoder and encoder != reader.identity:
        raise RecipeError(
            "the named teacher learned to read the features of another encoder",
            where=found,
            found=reader.identity,
            expected=encoder,
            remedy="set the reports section to the teacher's encoder, revision, length and width",
        )
    _take(found, target, source, package.card, seed)


def _find_teacher(source: Path, arm: str, seed: int) -> Path:
    """The package of an arm in the run `source`, or of its only teacher: of the same seed, else of the first."""
    arms: dict[str, dict[int, Path]] = {}
    for file in source.glob("teacher*/seed-*/package/package.json"):
        place = file.parents[1]
        arms.setdefault(place.parent.name, {})[int(place.name.removeprefix("seed-"))] = file.parent
    if len(arms) > 1 and arm not in arms:
        raise RecipeError(
            f"the run has several teachers, and none of them is the {arm}",
            where=source,
            offenders=sorted(arms),
            remedy="name the package of one of them, such as "
            f"{source / min(arms) / f'seed-{min(arms[min(arms)])}' / 'package'}",
        )
    if arms:
        seeds = arms.get(arm) or next(iter(arms.values()))
        return seeds.get(seed) or seeds[min(seeds)]
    if not (source / "package.json").is_file():
        raise StorageError("neither a run with a trained teacher nor a package", where=source)
    return source


def _require_same_network(package: Package, ours: SegmentorRecipe, where: Path) -> None:
    """Refuse a teacher of another network than the recipe's; an option that is left out has its default.

    Of an imported package the name alone is compared, since its dimensions are those of its checkpoint; of a file that
    is no part of the package, the content.
    """
    theirs, pinned = package.segmentor, package.network.pinned()
    if "imported" in package.card and theirs["name"] == ours.name:
        return
    made_of = [
        {"name": name, "size": size, "options": _options(name, options, pinned) if theirs["name"] == ours.name else {}}
        for name, size, options in (
            (theirs["name"], theirs["size"], theirs["options"]),
            (ours.name, ours.size, ours.model_dump(mode="json")["options"]),
        )
    ]
    changed = differences({"segmentor": made_of[0]}, {"segmentor": made_of[1]})
    if changed:
        raise RecipeError(
            "the named teacher is another network than the recipe says",
            where=where,
            offenders=[f"{line} (in the recipe)" for line in changed],
            remedy="give the recipe the segmentor of the named teacher, or name a teacher of this segmentor",
        )


def _options(name: str, given: dict[str, Any], pinned: Mapping[str, Any]) -> dict[str, Any]:
    every = {**segmentors.options(name), **given}
    for key in [key for key in pinned if f"{key}_hash" in pinned]:
        place = every.pop(key)
        every[f"{key}_hash"] = hash_file(place) if place and Path(place).is_file() else pinned[f"{key}_hash"]
    return {key: list(v) if isinstance(v, tuple) else v for key, v in every.items() if key != "pretrained"}


SHARED = ("student", "training", "data", "augment")
"""What a control and its student must have in common: all that a recipe says but the teacher."""

UNLEARNED = (
    "data.root",
    "data.licence",
    "data.source",
    "training.workers",
    "training.accelerator",
    "training.strategy",
    "training.checkpoint_minutes",
)
"""Keys of SHARED in which a control and its student may differ; of `data.root`, the content of the cases is compared.

Fewer than CHANGEABLE: a run that goes on to more epochs trains its control so long as well, one that was taken is not.
"""


def take_control(source: Path, target: Path, recipe: Recipe, seed: int, cases: Mapping[str, str]) -> None:
    """Copy the control of the same seed from another run into `target`. cases: our `resuming.fingerprints`.

    Raises StorageError where there is none, RecipeError where it was trained otherwise than this recipe's student,
    DataError where it was on other cases.
    """
    found = source / "control" / f"seed-{seed}" / "package"
    if not (found / "package.json").is_file():
        remedy = "train it there first, or remove control.source"
        raise StorageError(f"the run has no trained control of seed {seed}", where=source, remedy=remedy)
    package = load_package(found)
    ours = recipe.plain()
    theirs = validate_recipe(package.card.get("recipe") or {}, where=found).plain()  # with the defaults of today
    changed = [
        line
        for part in SHARED
        for line in differences({part: theirs.get(part)}, {part: ours[part]})
        if not is_among(line, UNLEARNED)
    ]
    if changed:
        raise RecipeError(
            "the named control was trained otherwise than this student",
            where=found,
            offenders=changed,
            remedy="undo the change, or remove control.source so that the control is trained here",
        )
    data = source / "data.json"
    others = differences(read_json(data).get("fingerprints", {}) if data.is_file() else {}, dict(cases))
    if others:
        raise DataError(
            "the named control was trained on other cases than this student",
            where=source,
            offenders=others,
            remedy="name a control of these cases, or remove control.source so that the control is trained here",
        )
    _take(found, target, source, package.card, seed)


def _take(found: Path, target: Path, source: Path, card: dict[str, Any], seed: int) -> None:
    """Copy a package, and what was already judged and measured of it, as that of `seed`.

    The package comes last: where it stands, so does all the rest.
    """
    there = (target / "package").exists() and (target / "done.json").is_file()
    if there and weights_hash(target / "package") == weights_hash(found):
        return
    trained = found.parent / "done.json"
    facts = read_json(trained) if trained.is_file() else {"best": card.get("validation")}
    for mark in (*found.parent.glob("judged.json"), *found.parent.glob("elsewhere/*/judged.json")):
        place = target / mark.parent.relative_to(found.parent)
        for name in ("cases.csv", "probes.csv"):
            _copy_table(mark.parent / name, place / name, seed)
        for name in ("cost.json", "predictions", "judged.json"):
            _copy(mark.parent / name, place / name)
    write_json(target / "done.json", {**facts, "source": str(source)})
    _replace_folder(found, target / "package")


def _copy_table(source: Path, target: Path, seed: int) -> None:
    if source.is_file():
        write_text(target, read_rows(source).assign(seed=seed).to_csv(index=False))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        _replace_folder(source, target)
    elif source.is_file():
        write_bytes(target, source.read_bytes())


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
