"""Published checkpoints of the original systems, brought to our parameter names.

What is known of each is in `originals`; all dimensions are read from the tensors' shapes.
"""

import json
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
from preceptor.originals import c2fvl, missformer, monai_networks, resnets, sikd, textdiff, textguided, transunet
from preceptor.originals.base import Original
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentor
from preceptor.segmentors.pretrained import fold_channels
from preceptor.storage import read_tensors, write_tensors

ARCHITECTURES: dict[str, Original] = {
    "textfreekd-teacher": textguided.TEACHER,
    "textfreekd-student": textguided.STUDENT,
    "languide": textguided.LANGUIDE,
    "c2fvl": c2fvl.C2FVL,
    "fcn": resnets.FCN,
    "unet": resnets.UNET,
    "attention_unet": resnets.ATTENTION_UNET,
    "missformer": missformer.MISSFORMER,
    "sikd-student": sikd.STUDENT,
    "sikd-teacher": sikd.TEACHER,
    "textdiff": textdiff.TEXTDIFF,
    "transunet": transunet.TRANSUNET,
    "mednext": monai_networks.MEDNEXT,
    "swin_unetr": monai_networks.SWIN_UNETR,
}
"""What can be imported, by name."""

_UNPICKLE_SECONDS = 1800


@dataclass(frozen=True)
class Imported:
    """A published network in our names.

    segmentor: keyword arguments of `segmentors.zoo.build`, JSON-like (`condition` as a dictionary or None, options
    under `options`). tensors: the state dict. dropped: official keys that are not needed. notes: facts for the card,
    see `originals.base.Original`; `transposed` says that the weights expect transposed images: set the segmentor's
    option `transposed`, or transpose.
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
    checkpoint: Path | str,
    out: Path | str | None = None,
    *,
    architecture: str,
    deep_supervision: bool = False,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Read a checkpoint of the original code (`.ckpt`, `.pth`, or safetensors) and write it to `out` as safetensors.

    A pickle is opened in a process of its own, weights only. The file written carries `segmentor` and `notes` as JSON
    metadata. deep_supervision: keep the side heads. in_channels: of the images; 1 sums a stem over its channels, None
    leaves what the original was given. options: of the segmentor, beside those that the tensors tell.
    Raises UntrustedFileError for a pickle that would run code, StorageError for a damaged file, RecipeError where the
    tensors are not of that architecture.
    """
    if architecture not in ARCHITECTURES:
        raise RecipeError(
            "there is no such architecture", where="architecture", found=architecture, expected=", ".join(ARCHITECTURES)
        )
    imported = convert(
        read_checkpoint(checkpoint),
        architecture,
        deep_supervision=deep_supervision,
        in_channels=in_channels,
        options=options,
        where=Path(checkpoint).name,
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


def convert(
    state: Mapping[str, Tensor],
    architecture: str,
    *,
    deep_supervision: bool = False,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
    where: object = "checkpoint",
) -> Imported:
    """An official state dict in our names, checked key by key and shape by shape against the network it makes.

    deep_supervision, in_channels and options as in `import_weights`. Raises RecipeError, listing all keys at fault, or
    where a file is needed that is no part of the checkpoint.
    """
    original, options = ARCHITECTURES[architecture], dict(options or {})
    lacking = [f"{name}: {what}" for name, what in original.beside.items() if name not in options]
    if lacking:
        raise RecipeError(
            "the checkpoint is not the whole network",
            where=where,
            offenders=lacking,
            remedy=" ".join(f"--option {name}=FILE" for name in original.beside),
        )
    own = _part(state, architecture, where)
    left_out = () if deep_supervision else tuple(key for key in own if key.startswith(original.side_heads))
    channels = in_channels if in_channels is not None else original.in_channels
    try:
        renamed, dropped = original.rename({key: own[key] for key in own if key not in left_out})
        tensors = {key: tensor.detach().clone() for key, tensor in renamed.items()}
        if channels is not None:
            tensors |= {
                stem: fold_channels(tensors[stem], channels, where) for stem in original.stems if stem in tensors
            }
        segmentor = {"name": original.segmentor, "condition": None, **original.arguments(tensors)}
        segmentor["options"] = {**segmentor["options"], **options}
        if channels is not None and not original.stems:
            segmentor["in_channels"] = channels  # a network that repeats grey images itself
    except KeyError as error:
        raise RecipeError(
            f"the checkpoint is not a whole {architecture}", where=where, found=f"no tensor for {error.args[0]}"
        ) from error
    _check_shapes(tensors, segmentor, architecture, where)
    dropped = [*dropped, *left_out]
    notes = {
        "architecture": architecture,
        **original.notes,
        "dropped": len(dropped),
        "elsewhere": len(state) - len(own),
    }
    return Imported(segmentor, tensors, tuple(dropped), notes)


def _part(state: Mapping[str, Tensor], architecture: str, where: object) -> dict[str, Tensor]:
    """The part of the checkpoint that is this architecture's, by its first prefix that fits."""
    original = ARCHITECTURES[architecture]
    own = original.part(state)
    if own is not None:
        return own
    found = next((name for name, other in ARCHITECTURES.items() if other.part(state) is not None), None)
    if found is not None:
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
        expected=f"keys such as {original.prefixes[0]}{original.telling}",
        offenders=sorted(state),
    )


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
