"""Published checkpoints of the original systems, brought to our parameter names.

Architectures: `textfreekd-teacher`, `textfreekd-student` (TextFreeKD, stages 1 and 2) and `languide`
(LanGuideMedSeg). All dimensions are read from the tensors' shapes. Source of the names: specs of TextFreeKD, section 5.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentor
from preceptor.storage import read_tensors, write_tensors

ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "textfreekd-teacher": ("guided", ("model_teacher.", "model.", "")),
    "textfreekd-student": ("unguided", ("model_student.", "")),
    "languide": ("guided", ("model.", "")),
}
"""Name to (our segmentor, prefixes under which a checkpoint may hold it, most telling first)."""

_UNPICKLE_SECONDS = 1800

_RENAMED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.model\.embeddings\.", "encoder.stem."),
        (r"^encoder\.model\.encoder\.stages\.", "encoder.stages."),
        (r"^decoder16\.", "decoder.stages.0."),
        (r"^decoder8\.", "decoder.stages.1."),
        (r"^decoder4\.", "decoder.stages.2."),
        (r"^decoder1\.conv_block\.", "decoder.head.expand."),
        (r"^out\.conv\.conv\.", "decoder.head.classify."),
        (r"^convds2\.", "decoder.side_heads.0."),
        (r"^convds1\.", "decoder.side_heads.1."),
        (r"\.guide_layer\.norm1\.", ".layer.self_norm."),
        (r"\.guide_layer\.norm2\.", ".layer.cross_norm."),
        (r"\.guide_layer\.(self|cross)_attn_norm1?\.", r".layer.\1_out_norm."),
        (r"\.guide_layer\.(self|cross)_attn1?\.in_proj_", r".layer.\1_attention.in_"),
        (r"\.guide_layer\.(self|cross)_attn1?\.out_proj\.", r".layer.\1_attention.out."),
        (r"\.guide_layer\.scale1?$", ".layer.scale"),
        (r"\.guide_layer\.text_project\.0\.", ".layer.mix_tokens."),
        (r"\.guide_layer\.text_project\.2\.", ".layer.project."),
        (r"\.decoder\.transp_conv\.conv\.", ".up.upsample."),
        (r"\.decoder\.conv_block\.(conv[12])\.conv\.", r".up.\1."),
        (r"\.decoder\.conv_block\.(norm[12])\.", r".up.\1."),
    )
]

_DROPPED = re.compile(
    r"^text_encoder\."  # reports become features before any training
    r"|^encoder\.project_head\.|^encoder\.model\.layernorm\."  # no output depends on them
    r"|\.(vis|txt)_pos\.pe$"  # a fixed table, computed
)


@dataclass(frozen=True)
class Imported:
    """A published network in our names.

    segmentor: keyword arguments of `segmentors.zoo.build`, JSON-like (`condition` as a dictionary or None, options
    under `options`). tensors: the state dict. dropped: official keys that are not needed. notes: facts for the card;
    `transposed` says that the weights expect transposed images: set the segmentor's option `transposed`, or transpose.
    """

    segmentor: dict[str, Any]
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def network(self) -> Segmentor:
        """The network with these weights, in eval mode; every name and shape is checked."""
        network = _build(self.segmentor)
        network.load_state_dict(self.tensors)
        return network.eval()


def import_weights(
    checkpoint: Path | str, out: Path | str | None = None, *, architecture: str, deep_supervision: bool = False
) -> Imported:
    """Read a checkpoint of the original code (`.ckpt`, `.pth`, or safetensors) and write it to `out` as safetensors.

    A pickle is opened in a process of its own, weights only. The file written carries `segmentor` and `notes` as JSON
    metadata. deep_supervision: keep the side heads. Raises UntrustedFileError for a pickle that would run code,
    StorageError for a damaged file, RecipeError where the tensors are not of that architecture.
    """
    if architecture not in ARCHITECTURES:
        raise RecipeError(
            "there is no such architecture", where="architecture", found=architecture, expected=", ".join(ARCHITECTURES)
        )
    imported = convert(
        read_checkpoint(checkpoint), architecture, deep_supervision=deep_supervision, where=Path(checkpoint).name
    )
    if out is not None:
        metadata = {"segmentor": json.dumps(imported.segmentor), "notes": json.dumps(imported.notes)}
        write_tensors(out, imported.tensors, metadata)
    return imported


def read_checkpoint(checkpoint: Path | str) -> dict[str, Tensor]:
    """The state dict of a checkpoint: safetensors are read here, a pickle in a separate, bounded process."""
    checkpoint = Path(checkpoint).absolute()
    if not checkpoint.is_file():
        raise StorageError("the checkpoint does not exist", where=checkpoint)
    with open(checkpoint, "rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":  # safetensors: the header's length in 8 bytes, then JSON
        return read_tensors(checkpoint)[0]
    with tempfile.TemporaryDirectory(prefix="preceptor-") as folder:
        out = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-m", "preceptor.unpickle", str(checkpoint), str(out)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_UNPICKLE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UntrustedFileError("reading the checkpoint took too long", where=checkpoint) from error
        if done.returncode == 0 and out.is_file():
            return read_tensors(out)[0]
        raise _refusal(checkpoint, done.returncode, done.stdout, done.stderr)


def _refusal(checkpoint: Path, code: int, stdout: str, stderr: str) -> StorageError:
    try:
        outcome = json.loads(stdout.strip().splitlines()[-1])
        reason, named = str(outcome["refused"]), outcome.get("named")
    except (ValueError, KeyError, IndexError, TypeError):
        last = stderr.strip().splitlines()[-1:]
        reason, named = f"the reading process ended with code {code}" + (f": {last[0]}" if last else ""), None
    with open(checkpoint, "rb") as file:
        foreign = file.read(1) == b"\x80" and reason.startswith("UnpicklingError")
    if named or foreign:
        return UntrustedFileError(
            "the checkpoint holds more than weights, and could run code; nothing of it was used",
            where=checkpoint,
            found=f"it asks for {named}" if named else reason,
            expected="tensors and plain values, as torch.save writes them",
            remedy="get the file from its authors, or have them save the state dict alone",
        )
    return StorageError(
        "the checkpoint cannot be read",
        where=checkpoint,
        found=reason[:300],
        remedy="download it again; a state dict saved by torch.save, a Lightning checkpoint or safetensors will do",
    )


def official_name(key: str) -> str:
    """Our name of an official parameter (without its checkpoint prefix); unknown names come back as they are."""
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def convert(
    state: Mapping[str, Tensor], architecture: str, *, deep_supervision: bool = False, where: object = "checkpoint"
) -> Imported:
    """An official state dict in our names, checked key by key and shape by shape against the network it makes.

    Raises RecipeError, listing all keys at fault.
    """
    name, prefixes = ARCHITECTURES[architecture]
    own = _without_prefix(state, prefixes, architecture, where)
    dropped = [key for key in own if _DROPPED.search(key) or (key.startswith("convds") and not deep_supervision)]
    tensors = {official_name(key): own[key].detach().clone() for key in own if key not in set(dropped)}
    segmentor = _segmentor(tensors, name, architecture, deep_supervision, where)
    _check_shapes(tensors, segmentor, architecture, where)
    notes = {
        "architecture": architecture,
        "transposed": True,
        "why_transposed": "the original code reads images as (width, height), and was trained on them",
        "preprocessing": {"size": 224, "resize": "bicubic", "antialias": False, "normalize": "zscore"},
        "dropped": len(dropped),
        "elsewhere": len(state) - len(own),
    }
    return Imported(segmentor, tensors, tuple(dropped), notes)


def _without_prefix(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...], architecture: str, where: object
) -> dict[str, Tensor]:
    """The part of the checkpoint that is this architecture's, by its first prefix that fits."""
    for prefix in prefixes:
        layer = f"{prefix}decoder16.guide_layer."
        if f"{layer}norm1.weight" in state:
            guided = any(key.startswith(f"{layer}text_project.") for key in state)
            languide = f"{layer}scale" in state
            found = "languide" if languide else "textfreekd-teacher" if guided else "textfreekd-student"
            if found == architecture:
                return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            raise RecipeError(
                "the checkpoint holds another network",
                where=where,
                found=found,
                expected=architecture,
                remedy=f"name the architecture {found}",
            )
    raise RecipeError(
        f"the checkpoint holds no network of the architecture {architecture}",
        where=where,
        expected=f"keys such as {prefixes[0]}decoder16.guide_layer.norm1.weight",
        offenders=sorted(state),
    )


def _segmentor(
    tensors: Mapping[str, Tensor], name: str, architecture: str, deep_supervision: bool, where: object
) -> dict[str, Any]:
    """What `zoo.build` needs to make a network of these shapes."""
    try:
        stages = [tensors[f"decoder.stages.{index}.up.upsample.weight"] for index in range(3)]
        widths = [stages[2].shape[1], *(stage.shape[0] for stage in reversed(stages))]
        blocks = [re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", key) for key in tensors]
        depths = [len({block[2] for block in blocks if block and block[1] == str(index)}) for index in range(4)]
        logits, head_width = tensors["decoder.head.classify.weight"].shape[:2]
        options: dict[str, Any] = {"widths": widths, "depths": depths, "head_width": head_width}
        if deep_supervision:
            options["deep_supervision"] = True
        condition = None
        if name == "guided":
            mixes = [tensors[f"decoder.stages.{index}.layer.mix_tokens.weight"] for index in range(3)]
            width = tensors["decoder.stages.0.layer.project.weight"].shape[1]
            options["report_tokens"] = [mix.shape[0] for mix in mixes]
            condition = {"kind": "report", "length": mixes[0].shape[1], "width": width}
            options["variant"] = "languide" if architecture == "languide" else "textfreekd"
        in_channels = tensors["encoder.stem.patch_embeddings.weight"].shape[1]
    except KeyError as error:
        raise RecipeError(
            f"the checkpoint is not a whole {architecture}", where=where, found=f"no tensor for {error.args[0]}"
        ) from error
    return {
        "name": name,
        "size": "base",
        "in_channels": in_channels,
        "classes": max(int(logits), 2),
        "condition": condition,
        "options": options,
    }


def _build(segmentor: Mapping[str, Any]) -> Segmentor:
    condition = Condition(**segmentor["condition"]) if segmentor["condition"] else None
    return zoo.build(
        segmentor["name"],
        in_channels=segmentor["in_channels"],
        classes=segmentor["classes"],
        size=segmentor["size"],
        condition=condition,
        **segmentor["options"],
    )


def _check_shapes(tensors: dict[str, Tensor], segmentor: Mapping[str, Any], architecture: str, where: object) -> None:
    """Hold the tensors against the network's own, and add the batch norms' counters where a checkpoint has none."""
    with torch.device("meta"):
        expected = _build(segmentor).state_dict()
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            tensors.setdefault(key, torch.tensor(0))
    faults = [f"missing: {key}" for key in expected if key not in tensors]
    faults += [f"not known: {key}" for key in tensors if key not in expected]
    faults += [
        f"{key}: {tuple(tensors[key].shape)} in place of {tuple(expected[key].shape)}"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    ]
    if faults:
        raise RecipeError(f"the checkpoint is not a {architecture}", where=where, offenders=faults)
