"""Judging an arm: case by case, at the original resolution, by the very code that predicts for a user.

Each arm is shown what its privilege shows, as in training; one that reads reports is also judged with wrong ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from preceptor.data.case import Case
from preceptor.data.loading import Batch
from preceptor.data.masks import decode_mask, resize_mask
from preceptor.data.readers import Picture, read_image, read_mask
from preceptor.data.transforms import Preprocessing
from preceptor.data.volumes import volume_spacing
from preceptor.delivery.package import Package, load_package
from preceptor.delivery.predict import more_than_images, segment_prepared
from preceptor.errors import DataError, UserError
from preceptor.evaluation.cost import measure_cost
from preceptor.evaluation.metrics import CASE_METRICS, case_metrics
from preceptor.evaluation.scores import read_rows
from preceptor.evaluation.units import units
from preceptor.evaluation_sets import EvaluationSet
from preceptor.learning.losses import IGNORED
from preceptor.learning.privilege import PRIVILEGES, Reader
from preceptor.progress import Progress, callback
from preceptor.recipe_data import DataRecipe
from preceptor.recipe_evaluate import EvaluateRecipe
from preceptor.segmentors.base import Segmentor
from preceptor.storage import hash_file, read_json, replacing, write_json, write_text

Row = dict[str, Any]
Spacing = Sequence[float] | None
Remember = Callable[[Package, int], Segmentor]
"""From a package and the number of images that are judged to what stands for its network, see `caching.remembering`."""


@dataclass(frozen=True)
class Judge:
    """How predictions are compared: labels and mask rule of a data set, and the settings of judging.

    counted: for each class of the network, the class of `data.labels` that it counts as; None: they are the same.
    Classes that none counts as are not scored.
    """

    data: DataRecipe
    settings: EvaluateRecipe
    counted: tuple[int, ...] | None = None

    def rows(
        self,
        package: Package,
        cases: Sequence[Case],
        seed: int,
        reader: Reader | None = None,
        reports: Sequence[str] | None = None,
        predictions: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Row]:
        """A row for each case, or for each volume where the cases are slices of volumes, and foreground class.

        reader, reports: what a package that reads is shown, a report for each case. predictions: folder for PNGs of
        the network's class indices, one a slice.
        """
        rows: list[Row] = []
        texts = {} if reports is None else {case.name: text for case, text in zip(cases, reports, strict=True)}
        done = 0
        for name, chosen in units(cases, self.settings.unit):
            predicted, reference = [], []
            for case in chosen:
                picture = read_image(case.image, case.slice)
                assert case.mask is not None
                stored = read_mask(case.mask, case.slice).pixels
                probability = self.answer(package, case, picture, stored, reader, texts.get(case.name))
                classes = probability.argmax(0).astype(np.uint8)
                if predictions is not None:
                    write_prediction(predictions / f"{case.name}.png", classes)
                predicted.append(classes if self.counted is None else np.array(self.counted, np.uint8)[classes])
                data = self.data
                reference.append(decode_mask(stored, data.labels, data.mask_rule, case.mask, data.ignore))
                done += 1
                if progress is not None:
                    progress(done, len(cases))
            first = chosen[0]
            if first.volume is not None and self.settings.unit != "slice":
                _require_one_size(name, [classes.shape for classes in predicted])
                scores = self.scores(np.stack(predicted), np.stack(reference), volume_spacing(first.image))
            else:
                scores = self.scores(predicted[0], reference[0], picture.geometry.spacing)
            rows += [{"case": name, "group": first.group or "", "seed": seed, **row} for row in scores]
        return rows

    def answer(
        self,
        package: Package,
        case: Case,
        picture: Picture,
        stored: np.ndarray,
        reader: Reader | None,
        text: str | None,
    ) -> np.ndarray:
        """Class probabilities [C, H, W] of a package that is shown of a case what its privilege shows.

        stored: the reference [H, W] or [H, W, 3] as in its file, seen only by a privilege that needs it.
        """
        privilege, size, mask = PRIVILEGES[package.needs], package.preprocessing.size, None
        if "mask" in privilege.needs:
            data = self.data
            small = resize_mask(stored, size, data.labels, data.mask_rule, case.mask, data.ignore)
            mask = torch.from_numpy(small).long()[None]
        shown: dict[str, torch.Tensor] = {}
        if privilege.reading is not None:
            assert reader is not None
            assert text is not None
            shown = {privilege.reading.kind: reader.batch([text])}
        image = package.preprocessing.apply(picture)[None]
        image, condition = privilege.view(Batch(image, mask, [case.name], shown))
        return segment_prepared(package.network, image, [picture.geometry.shape], condition)[0]

    def scores(self, predicted: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Iterator[Row]:
        """The metrics of each foreground class; pixels whose label is to be ignored count neither way."""
        valid = reference != IGNORED
        for number, name in enumerate(self.data.labels):
            if number == 0 or (self.counted is not None and number not in self.counted):
                continue
            found = (predicted == number) & valid
            yield {"class": name, **case_metrics(found, reference == number, spacing, self.settings.tolerance)}


def _require_one_size(volume: str, shapes: Sequence[tuple[int, ...]]) -> None:
    sizes = [" x ".join(map(str, shape)) for shape in dict.fromkeys(shapes)]
    if len(sizes) > 1:
        raise DataError(
            "the slices of a volume differ in size, so that they cannot be scored as one",
            where=volume,
            found=", ".join(sizes),
            expected="one size, height x width, in a volume",
            remedy="set evaluate.unit=slice, or mend the volumes in the manifest",
        )


def judge_seed(
    package: Path,
    folder: Path,
    judged: EvaluationSet,
    seed: int,
    reader: Reader | None,
    progress: Progress,
    name: str,
    remember: Remember | None = None,
) -> None:
    """Judge a package: writes `cases.csv`, `predictions/`, and `probes.csv` where it reads reports, into `folder`.

    A judgement that stands for the same weights, cases and settings is kept. On the recipe's own data, `cost.json` as
    well. remember: gives a network of the same answers that probes, seeds and arms can share the work of.
    """
    key = {"weights": hash_file(package / "weights.safetensors"), **judged.key()}
    mark = folder / "judged.json"
    if mark.exists() and read_json(mark) == key:
        return
    cases, data, settings = judged.cases, judged.data, judged.settings
    loaded = load_package(package)
    values = Preprocessing.from_recipe(data)
    shown = replace(loaded.preprocessing, normalize=values.normalize, clip=values.clip)
    loaded = replace(loaded, preprocessing=shown)
    reading = PRIVILEGES[loaded.needs].reading
    reader = reader if reading is not None else None
    reports = [case.words(reading.kind if reading is not None else "report") for case in cases]
    whole = loaded.network
    if remember is not None:
        loaded = replace(loaded, network=remember(loaded, len(cases)))
    judge = Judge(data, settings, judged.counted)
    rows = judge.rows(loaded, cases, seed, reader, reports, folder / "predictions", callback(progress, name))
    _write_rows(folder / "cases.csv", rows)
    probes: list[Row] = []
    if reading is not None and settings.probes:
        for probe, texts in reading.probes(reports, 0).items():  # every seed is probed with the same reports
            assert reader is not None
            changed = _differing(reader.batch(reports), reader.batch(texts))
            wrong, chosen = [texts[index] for index in changed], [cases[index] for index in changed]
            counter = callback(progress, f"{name}, {probe.replace('_', ' ')} reports")
            found = judge.rows(loaded, chosen, seed, reader, wrong, None, counter)
            probes += [{**row, "probe": probe} for row in found]
    if probes:
        _write_rows(folder / "probes.csv", probes)
    else:
        (folder / "probes.csv").unlink(missing_ok=True)  # of an earlier judgement
    if not judged.name:
        image = torch.zeros(1, data.channels, *data.size)
        condition = reader.batch(reports[:1]) if reader is not None else None
        write_json(folder / "cost.json", {**measure_cost(whole, image, condition), "needs": loaded.needs})
    write_json(mark, key)


def _differing(shown: torch.Tensor, instead: torch.Tensor) -> list[int]:
    """The cases of which something else is shown; [N, ...], NaN where it is unknown equals NaN."""
    same = (shown == instead) | (shown.isnan() & instead.isnan())
    return torch.nonzero(~same.flatten(1).all(dim=1)).flatten().tolist()


def join_tables(places: Sequence[Path], target: Path) -> None:
    """One table of all seeds for each table that every seed has; an older one that some seed lacks is removed."""
    import pandas as pd

    for name in ("cases.csv", "probes.csv"):
        if all((place / name).exists() for place in places):
            tables = [read_rows(place / name) for place in places]
            write_text(target / name, pd.concat(tables).to_csv(index=False))
        else:
            (target / name).unlink(missing_ok=True)


def evaluate_package(
    package: Package,
    data: DataRecipe,
    cases: Sequence[Case],
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, float, float]]:
    """Judge a package on labelled cases; writes `cases.csv` and predictions into `out`.

    One that is shown class means sees the masks, which are there: its scores say little.

    Returns mean, low and high of each metric over cases and classes. Raises UserError where the package reads
    reports, or the labels name other classes than the package's.
    """
    import pandas as pd

    from preceptor.evaluation.statistics import interval

    names = list(package.labels)
    if PRIVILEGES[package.needs].reading is not None:
        raise more_than_images(package)
    if list(data.labels) != names:
        raise UserError(
            "the labels are not the package's classes",
            found=", ".join(data.labels) or "none",
            expected=", ".join(f"--label {name}={value}" for name, value in package.labels.items()),
            remedy="name each class with the value that it has in these masks",
        )
    rows = Judge(data, EvaluateRecipe()).rows(package, cases, 0, predictions=out / "predictions", progress=progress)
    _write_rows(out / "cases.csv", rows)
    frame = pd.DataFrame(rows)
    groups = frame.groupby("case", sort=False)
    unit = [f"group {group}" if group else f"case {case}" for case, group in groups["group"].first().items()]
    return {name: interval(groups[name].mean().to_numpy(), unit) for name in CASE_METRICS}


def write_prediction(path: Path, classes: np.ndarray) -> None:
    """Write class indices [H, W] as an 8-bit PNG."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(classes).save(temporary, format="PNG")


def _write_rows(path: Path, rows: list[Row]) -> None:
    import pandas as pd

    write_text(path, pd.DataFrame(rows).to_csv(index=False))
