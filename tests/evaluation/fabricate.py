"""A run folder made up for tests: drawn films, perturbed masks as predictions, curves, tables."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.evaluation.metrics import case_metrics
from preceptor.recipe import Recipe, validate_recipe

SHIFT = {"teacher": 1.5, "student": 3.0, "control": 4.5, "teacher-wide": 1.5, "teacher-words": 2.5}
"""By how many pixels of 96 the predictions of an arm are off, on average."""


def fabricate_rows(
    cases: int = 20,
    seeds: Sequence[int] = (0,),
    arm: str = "control",
    classes: Sequence[str] = ("infection",),
    groups: int | None = None,
    gain: float = 0.0,
    seed: int = 0,
) -> Any:
    """A table of scores without pictures, quick: Dice drawn around 0.7 + gain, counts to match."""
    import pandas as pd

    base = np.random.default_rng(seed)
    hard = base.normal(0.7, 0.08, (cases, len(classes)))
    own = np.random.default_rng([seed, sum(arm.encode())])
    rows = []
    for index in range(cases):
        for k, name in enumerate(classes):
            for s in seeds:
                dice = float(np.clip(hard[index, k] + gain + own.normal(0, 0.02), 0.05, 0.99))
                tp = round(1000 * dice)
                counts = {"tp": tp, "fp": 1000 - tp, "fn": 1000 - tp, "tn": 5000}
                iou = tp / (2000 - tp)
                scores = {"dice": tp / 1000, "iou": iou, "precision": tp / 1000, "recall": tp / 1000}
                scores |= {"hd95": 40 * (1 - dice), "assd": 10 * (1 - dice), "surface_dice": dice}
                group = f"p{index % groups}" if groups else ""
                rows.append(
                    {"case": f"c{index:03}", "group": group, "seed": s, "class": name, "kind": "both"} | scores | counts
                )
    return pd.DataFrame(rows)


def film(size: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture with two dark lungs and up to three bright patches; uint8 [size, size] and its bool mask."""
    y, x = np.indices((size, size)) / size
    picture = 0.62 + 0.1 * noise.standard_normal() * (y - 0.5)
    lungs = np.zeros((size, size))
    for centre in (0.3, 0.7):
        lungs += np.exp(-((((x - centre) / 0.13) ** 2 + ((y - 0.5) / 0.32) ** 2) ** 3))
    picture = picture - 0.42 * np.clip(lungs, 0, 1)
    mask = np.zeros((size, size), bool)
    for _ in range(int(noise.integers(0, 4))):
        cx, cy = noise.choice([0.3, 0.7]) + noise.normal(0, 0.03), noise.uniform(0.3, 0.7)
        turn, long = noise.uniform(0, np.pi), noise.uniform(0.05, 0.12)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
        patch = (u / long) ** 2 + (v / (0.6 * long)) ** 2
        picture = picture + 0.3 * np.exp(-patch)
        mask |= patch < 1
    picture = picture + 0.03 * noise.standard_normal((size, size))
    return (255 * np.clip(picture, 0, 1)).astype(np.uint8), mask


def perturbed(mask: np.ndarray, amount: float, noise: np.random.Generator) -> np.ndarray:
    """A mask moved, roughened, and now and then emptied or invented."""
    from scipy.ndimage import gaussian_filter, shift

    size = len(mask)
    if noise.random() < 0.012 * amount:
        return np.zeros_like(mask)
    moved = shift(mask.astype(float), noise.normal(0, amount * size / 96, 2), order=1)
    rough = gaussian_filter(noise.standard_normal(mask.shape), size / 24) * size / 24
    found = gaussian_filter(moved, size / 64) + 0.11 * amount * rough > 0.5
    if not mask.any() and noise.random() > 0.1 * amount:
        found[:] = False
    return found


def fabricate_run(
    folder: Path,
    cases: int = 16,
    seeds: Sequence[int] = (0, 1),
    size: int = 96,
    arms: Sequence[str] = ("teacher", "control", "student"),
    report: str = "",
    blind: bool = False,
    leaks: bool = True,
) -> Path:
    """Write a data folder `folder/data` and a run folder `folder/run`; returns the run folder."""
    from PIL import Image

    data, run = folder / "data", folder / "run"
    for part in (data / "images", data / "masks", run):
        part.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(7)
    manifest, masks = [], []
    sides = ("Unilateral", "left"), ("Bilateral", "left and right"), ("Unilateral", "right")
    for index in range(cases):
        picture, mask = film(size, noise)
        name = f"film_{index:03}"
        Image.fromarray(picture).save(data / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(data / "masks" / f"{name}.png")
        word, side = sides[index % 3]
        text = report or f"{word} pulmonary infection, {index % 3 + 1} infected areas, upper {side} lung."
        manifest.append([name, "test", f"images/{name}.png", f"masks/{name}.png", f"patient{index // 2}", text, ""])
        masks.append(mask)
    write_csv(run / "cases.csv", ["case", "split", "image", "mask", "group", "report", "slice"], manifest)
    probes: list[dict] = []
    for arm in arms:
        rows: list[dict] = []
        for seed in seeds:
            place = run / arm / f"seed-{seed}"
            (place / "predictions").mkdir(parents=True, exist_ok=True)
            for line, mask in zip(manifest, masks, strict=True):
                own = np.random.default_rng([seed, sum(arm.encode()), sum(line[0].encode())])
                found = perturbed(mask, SHIFT[arm], own)
                Image.fromarray(found.astype(np.uint8)).save(place / "predictions" / f"{line[0]}.png")
                facts = {"case": line[0], "group": line[4], "seed": seed, "class": "infection"}
                rows.append(facts | case_metrics(found, mask, tolerance=2.0))
                for probe, extra in (("empty", 1.0), ("shuffled", 3.0), ("wrong_side", 2.0)):
                    if arm == "teacher":
                        other = perturbed(mask, SHIFT[arm] + (0 if blind else extra), np.random.default_rng(own))
                        probes.append(facts | {"probe": probe} | case_metrics(other, mask, tolerance=2.0))
            write_curves(place, SHIFT[arm], seed)
        write_rows(run / arm / "cases.csv", rows)
    if probes:
        write_rows(run / "teacher" / "probes.csv", probes)
    write_facts(run, data, fabricated_recipe(data, seeds), leaks)
    return run


HEART = {"right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
VOLUME_ARMS = ("teacher-wide", "teacher-words", "control", "student")


def heart(size: int, depth: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A grey volume of two chambers and a ring between them, small at its ends: [depth, size, size] and its labels."""
    z, y, x = np.indices((depth, size, size))
    wide = (0.24 - 0.1 * np.abs(z / max(depth - 1, 1) - 0.5)) * size
    far = np.hypot(x - (0.58 + noise.normal(0, 0.02)) * size, y - 0.52 * size)
    labels = np.where(far < wide, 2, 0)
    labels[far < 0.6 * wide] = 3
    beside = np.hypot((x - 0.26 * size) / 0.8, (y - 0.45 * size) / 1.2) < 0.7 * wide
    labels[beside & (labels == 0)] = 1
    labels[-1] = 0
    grey = np.array([0.35, 0.8, 0.45, 0.85])[labels] + 0.05 * noise.standard_normal(labels.shape)
    return (255 * np.clip(grey, 0, 1)).astype(np.uint8), labels.astype(np.uint8)


def fabricate_volumes(
    folder: Path, patients: int = 4, size: int = 48, depth: int = 4, arms: Sequence[str] = VOLUME_ARMS
) -> Path:
    """A run judged volume by volume, two of a patient, with several teachers of which `teacher-words` reads reports.

    Writes `folder/data` and a run folder `folder/run`; returns the run folder.
    """
    from PIL import Image

    data, run = folder / "data", folder / "run"
    noise = np.random.default_rng(5)
    manifest: list[list[str]] = []
    truth: dict[str, np.ndarray] = {}
    for part in (data / "images", data / "masks", run):
        part.mkdir(parents=True, exist_ok=True)
    for number in range(2 * patients):
        volume = f"patient{number // 2}_{'ED' if number % 2 else 'ES'}"
        grey, truth[volume] = heart(size, depth, noise)
        for k in range(depth):
            name = f"{volume}_{k}"
            Image.fromarray(grey[k]).save(data / "images" / f"{name}.png")
            Image.fromarray(truth[volume][k]).save(data / "masks" / f"{name}.png")
            files = [f"images/{name}.png", f"masks/{name}.png"]
            manifest.append([name, "test", *files, f"patient{number // 2}", "", "", volume])
    write_csv(run / "cases.csv", ["case", "split", "image", "mask", "group", "report", "slice", "volume"], manifest)
    for arm in arms:
        place = run / arm / "seed-0"
        (place / "predictions").mkdir(parents=True, exist_ok=True)
        rows: list[dict] = []
        for volume, labels in truth.items():
            own = np.random.default_rng([sum(arm.encode()), sum(volume.encode())])
            found = np.zeros_like(labels)
            for k, number in ((k, number) for k in range(depth) for number in HEART.values()):
                found[k][perturbed(labels[k] == number, SHIFT[arm], own)] = number
            for k in range(depth):
                Image.fromarray(found[k]).save(place / "predictions" / f"{volume}_{k}.png")
            facts = {"case": volume, "group": volume.split("_")[0], "seed": 0}
            for name, number in HEART.items():
                rows.append(facts | {"class": name} | case_metrics(found == number, labels == number))
        write_rows(run / arm / "cases.csv", rows)
        write_curves(place, SHIFT[arm], 0)
        if arm == "teacher-words":
            write_rows(run / arm / "probes.csv", [row | {"probe": "empty", "dice": row["dice"] / 2} for row in rows])
    teachers = {arm.removeprefix("teacher-"): arm == "teacher-words" for arm in arms if arm.startswith("teacher-")}
    changes = {
        "teachers": {
            name: {"segmentor": {"name": "guided" if reads else "unet_r50"}, "privilege": "report" if reads else "none"}
            for name, reads in teachers.items()
        },
        "distill": [{"name": "kd", "teacher": name} for name in teachers] if "student" in arms else [],
    }
    plain = (
        fabricated_recipe(data, [0]).plain() | {"teacher": None, "name": "phantom hearts", "description": ""} | changes
    )
    plain["data"] |= {"labels": {"background": 0, **HEART}}
    write_facts(run, data, validate_recipe(plain), leaks=False, unit="voxel", scored="volume")
    return run


def write_curves(place: Path, level: float, seed: int, epochs: int = 40) -> None:
    noise = np.random.default_rng(seed)
    rows = []
    for epoch in range(epochs):
        done = 1 - np.exp(-epoch / 8)
        dice = (0.93 - 0.06 * level) * done + 0.012 * noise.standard_normal()
        loss = 1.2 * np.exp(-epoch / 7) + 0.05 * level + 0.02 * noise.standard_normal()
        rows.append([epoch, loss, loss + 0.05, dice, dice - 0.02, 3.1, 0])
    names = ["epoch", "train_loss", "val_loss", "val_dice_pooled", "val_dice_image_mean", "seconds", "skipped"]
    write_csv(place / "metrics.csv", names, rows)


def fabricated_recipe(data: Path, seeds: Sequence[int]) -> Recipe:
    return validate_recipe(
        {
            "name": "phantom films",
            "description": "Generated chest films with infected areas; the reports say where.",
            "data": {
                "root": str(data),
                "labels": {"background": 0, "infection": 255},
                "licence": "CC-BY-NC-4.0",
                "source": "generated",
            },
            "teacher": {"segmentor": {"name": "guided", "size": "tiny"}, "privilege": "report"},
            "student": {"name": "unguided", "size": "tiny"},
            "distill": [{"name": "token_l1", "weight": 0.5}],
            "seeds": list(seeds),
            "evaluate": {"bootstrap": 500},
        }
    )


def write_facts(run: Path, data: Path, recipe: Recipe, leaks: bool, unit: str = "pixel", scored: str = "case") -> None:
    from preceptor.evaluation.summary import summarise_run
    from preceptor.storage import write_json, write_text

    leak = {"score": 0.61 if leaks else 0.05, "threshold": 0.25, "chance": 0.08, "leaks": leaks}
    leak["message"] = "the reports describe the mask: leak score 0.61" if leaks else "the reports hardly describe it"
    facts = {"layout": "folders", "cases": 320, "splits": {"train": 240, "val": 40, "test": 40}, "groups": 160}
    write_text(run / "recipe.yaml", recipe.to_yaml())
    write_json(run / "data.json", {"findings": [], "facts": facts, "leak": leak})
    write_json(
        run / "environment.json",
        {"python": "3.12.3", "processor": "a processor", "threads": 2, "packages": {"torch": "2.13.0", "numpy": "2.3"}},
    )
    large = {"parameters": 5_912_345, "gflops": 12.34, "latency_ms": 21.4, "memory_mb": 58.2}
    small = {"parameters": 1_204_321, "gflops": 0.567, "latency_ms": 8.9, "memory_mb": 17.3}
    costs: dict[str, dict[str, Any]] = {
        arm: {**(large if arm in recipe.taught else small), "needs": recipe.privilege_of(arm)} for arm in recipe.arms
    }
    for entry in costs.values():
        entry |= {"epochs": 40, "minutes": 2.1}
    summary = summarise_run(run, recipe, facts=costs, data=facts, leak=leak, unit=unit, scored=scored)
    write_json(run / "summary.json", summary)


def write_rows(path: Path, rows: list[dict]) -> None:
    write_csv(path, list(rows[0]), [list(row.values()) for row in rows])


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def read_summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))
