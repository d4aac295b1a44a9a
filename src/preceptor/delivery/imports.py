"""Published checkpoints as packages: the original's weights with the preparation that they were trained on.

The original code reads pictures as (width, height), so its networks know transposed images only. The segmentor's
option `transposed` turns the input and turns the answer back; a package holds row-major pictures like any other.
Source: spec of TextFreeKD, sections 2.2, 7 and 10.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from preceptor import weights
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import save_package
from preceptor.errors import RecipeError
from preceptor.originals.diffusion import convert_diffusion
from preceptor.segmentors.diffusion import write_diffusion
from preceptor.storage import hash_file, write_tensors
from preceptor.text.convert import convert_encoder

TEXT_ENCODER = "text-encoder"
BACKBONE = "backbone"
DIFFUSION = "diffusion"

ARCHITECTURES: dict[str, str] = {
    **{name: original.line for name, original in weights.ARCHITECTURES.items()},
    BACKBONE: "a ResNet that is published as a pickle (OpenMMLab v1c, torchvision), to name in `pretrained`",
    DIFFUSION: "an unconditional U-Net of guided diffusion (256x256_diffusion_uncond.pt), for TextDiff's `diffusion`",
    TEXT_ENCODER: "a BERT that is published as a pickle only (`pytorch_model.bin`), to name in `reports.encoder`",
}
"""What can be imported, with one line each."""


def import_package(
    checkpoint: Path | str, out: Path | str, architecture: str, options: Mapping[str, Any] | None = None
) -> Path:
    """Turn a checkpoint of `architecture` (see ARCHITECTURES) into a package at `out`, which it returns.

    The picture is prepared as the original's notes tell. A text encoder becomes a folder, a backbone and a diffusion
    U-Net a safetensors file each, to name in a recipe; none of them is a package. options: as in `import_weights`.
    Raises RecipeError for an unknown architecture or a checkpoint of another one, UntrustedFileError for a pickle that
    would run code, StorageError for a damaged or missing file.
    """
    if architecture not in ARCHITECTURES:
        raise RecipeError(
            "there is no such architecture", where="architecture", found=architecture, expected=", ".join(ARCHITECTURES)
        )
    if architecture == TEXT_ENCODER:
        return convert_encoder(checkpoint, out)
    if architecture == BACKBONE:
        write_tensors(out, weights.read_checkpoint(checkpoint))
        return Path(out)
    if architecture == DIFFUSION:
        write_diffusion(out, *convert_diffusion(weights.read_checkpoint(checkpoint)))
        return Path(out)
    imported = weights.import_weights(checkpoint, architecture=architecture, options=options)
    transposed = imported.notes.get("transposed", False)
    if transposed:
        options = {**imported.segmentor["options"], "transposed": True}
        imported = replace(imported, segmentor={**imported.segmentor, "options": options})
    if imported.notes.get("blue_first") and imported.segmentor["in_channels"] == 3:
        stems = weights.ARCHITECTURES[architecture].stems
        turned = {name: imported.tensors[name].flip(1) for name in stems}  # so that a package is shown red first
        imported = replace(imported, tensors={**imported.tensors, **turned})
    reads = imported.notes.get("reads")
    remarks = {key: imported.notes[key] for key in ("why_transposed", "remarks") if key in imported.notes}
    checkpoint = Path(checkpoint)
    card: dict[str, Any] = {
        "name": architecture,
        "description": f"{ARCHITECTURES[architecture]}, imported from {checkpoint.name}."
        + (f"\n\n{reads}" if reads else ""),
        "source": "as the authors of the checkpoint state it",
        "licence": "as the authors of the checkpoint state it",
        "imported": {
            "file": checkpoint.name,
            "sha256": hash_file(checkpoint),
            "architecture": architecture,
            "dropped_tensors": len(imported.dropped),
            **remarks,
        },
    }
    return save_package(
        out,
        imported.network(),
        segmentor=imported.segmentor,
        preprocessing=_preprocessing(imported),
        labels=_labels(imported),
        card=card,
        needs=imported.notes.get("needs"),
    )


def _preprocessing(imported: weights.Imported) -> Preprocessing:
    settings = dict(imported.notes["preprocessing"])
    side = settings.pop("size")
    return Preprocessing((side, side), imported.segmentor["in_channels"], **settings)


def _labels(imported: weights.Imported) -> dict[str, int | str | list[int]]:
    """The original's labels where there are as many as the checkpoint has classes, else numbers for names."""
    classes = imported.segmentor["classes"]
    known = imported.notes.get("labels", {})
    return known if len(known) == classes else {"background": 0, **{f"class {n}": n for n in range(1, classes)}}
