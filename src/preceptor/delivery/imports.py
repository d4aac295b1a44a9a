"""Published checkpoints as packages: the original's weights with the preparation that they were trained on.

The original code reads pictures as (width, height), so its networks know transposed images only. The segmentor's
option `transposed` turns the input and turns the answer back; a package holds row-major pictures like any other.
Source: spec of TextFreeKD, sections 2.2, 7 and 10.
"""

from dataclasses import replace
from pathlib import Path

from preceptor import weights
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import save_package
from preceptor.errors import RecipeError
from preceptor.storage import hash_file
from preceptor.text.convert import convert_encoder

TEXT_ENCODER = "text-encoder"

_ORIGINS = {
    "textfreekd-teacher": "TextFreeKD's report-guided teacher (stage 1; IEEE TIM 2025, doi 10.1109/TIM.2025.3545506)",
    "textfreekd-student": "TextFreeKD's report-free student (stage 2; IEEE TIM 2025, doi 10.1109/TIM.2025.3545506)",
    "languide": "LanGuideMedSeg's report-guided network (MICCAI 2023)",
}

ARCHITECTURES: dict[str, str] = {
    **_ORIGINS,
    TEXT_ENCODER: "a BERT that is published as a pickle only (`pytorch_model.bin`), to name in `reports.encoder`",
}
"""What can be imported, with one line each."""

LABELS: dict[str, int | str | list[int]] = {"background": 0, "foreground": 255}
"""The original's masks: foreground is 255, and nothing else is."""

_REPORTS = (
    "The published checkpoints read reports as the last hidden state of microsoft/BiomedVLP-CXR-BERT-specialized for "
    "24 tokens, padding included; features of another encoder give nonsense, and the package cannot notice."
)


def import_package(checkpoint: Path | str, out: Path | str, architecture: str) -> Path:
    """Turn a checkpoint of `architecture` (see ARCHITECTURES) into a package at `out`, which it returns.

    The picture is prepared as the original does: 224 x 224, bicubic without antialiasing, each channel to mean 0 and
    deviation 1. A text encoder becomes a folder to name in a recipe, not a package.
    Raises RecipeError for an unknown architecture or a checkpoint of another one, UntrustedFileError for a pickle that
    would run code, StorageError for a damaged or missing file.
    """
    if architecture not in ARCHITECTURES:
        raise RecipeError(
            "there is no such architecture", where="architecture", found=architecture, expected=", ".join(ARCHITECTURES)
        )
    if architecture == TEXT_ENCODER:
        return convert_encoder(checkpoint, out)
    imported = weights.import_weights(checkpoint, architecture=architecture)
    options = {**imported.segmentor["options"], "transposed": imported.notes["transposed"]}
    imported = replace(imported, segmentor={**imported.segmentor, "options": options})
    guided = imported.segmentor["condition"] is not None
    checkpoint = Path(checkpoint)
    card = {
        "name": architecture,
        "description": f"{_ORIGINS[architecture]}, imported from {checkpoint.name}."
        + (f"\n\n{_REPORTS}" if guided else ""),
        "source": "as the authors of the checkpoint state it",
        "licence": "as the authors of the checkpoint state it",
        "imported": {
            "file": checkpoint.name,
            "sha256": hash_file(checkpoint),
            "architecture": architecture,
            "dropped_tensors": len(imported.dropped),
            "why_transposed": imported.notes["why_transposed"],
        },
    }
    return save_package(
        out,
        imported.network(),
        segmentor=imported.segmentor,
        preprocessing=Preprocessing((224, 224), imported.segmentor["in_channels"], "bicubic", False, "zscore"),
        labels=LABELS,
        card=card,
    )
