"""The package: the folder that is shipped. Weights as safetensors, everything else as JSON, and a card for people.

    package.json          the network, how images are prepared, what the labels mean, the weights' hash, the card
    weights.safetensors   the state of the network
    README.md             the card, as text

Nothing in a package can execute. It is checked from the outside in - names, description, hash, names and shapes of the
tensors - before a single tensor is read, and the first thing that is wrong is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor import __version__, storage
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.card import render_card
from preceptor.errors import RecipeError, StorageError, UntrustedFileError
from preceptor.learning.privilege import PRIVILEGES
from preceptor.recipe_faults import explain
from preceptor.segmentors import zoo
from preceptor.segmentors.base import Condition, Segmentor, learnable_parameters

FORMAT = "preceptor-package"
FORMAT_VERSION = 1
"""Raised when older versions of the library could misunderstand a package."""

DESCRIPTION, WEIGHTS, CARD = "package.json", "weights.safetensors", "README.md"
DESCRIPTION_LIMIT = 4 * 2**20
"""Longest package.json that is read, in bytes."""
SIDE_LIMIT = 2**14
"""Largest input of a network, in pixels a side: a larger one could only exhaust the memory."""
PICKLED = {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".pyc", ".tar"}
HARMLESS = {".csv", ".html", ".json", ".md", ".onnx", ".png", ".safetensors", ".txt", ".yaml"}

Labels = dict[str, int | str | list[int]]


@dataclass(frozen=True)
class Package:
    """A loaded package.

    network: in eval mode, on the CPU. labels: class name to stored mask value, as in the recipe's `data.labels`; the
    first is the background. segmentor: name, size, options, in_channels, classes, condition. needs: the privilege that
    the network must be shown, one of `learning.privilege.PRIVILEGES`. card: facts about its making. identity: SHA-256
    of the weights file.
    """

    network: Segmentor
    preprocessing: Preprocessing
    labels: Labels
    segmentor: dict[str, Any]
    card: dict[str, Any]
    needs: str
    identity: str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Condition(_Part):
    kind: Literal["report", "attributes"]
    length: Annotated[int, Field(gt=0, le=2**16)]
    width: Annotated[int, Field(gt=0, le=2**16)]


class _Segmentor(_Part):
    name: str
    size: Literal["tiny", "small", "base"]
    options: dict[str, Any]
    in_channels: Annotated[int, Field(gt=0, le=1024)]
    classes: Annotated[int, Field(gt=1, le=1024)]
    condition: _Condition | None

    def build(self) -> Segmentor:
        """A fresh network; global random numbers stay as they are. Raises RecipeError for unknown names and options."""
        condition = Condition(**self.condition.model_dump()) if self.condition else None
        with torch.random.fork_rng(devices=[]):
            return zoo.build(
                self.name,
                in_channels=self.in_channels,
                classes=self.classes,
                size=self.size,
                condition=condition,
                **self.options,
            )


class _Weights(_Part):
    file: Literal["weights.safetensors"]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    parameters: int


class _Description(_Part):
    format: Literal["preceptor-package"]
    version: int
    preceptor: str
    segmentor: _Segmentor
    preprocessing: dict[str, Any]
    labels: Annotated[Labels, Field(min_length=2)]
    needs: str
    weights: _Weights
    card: dict[str, Any]


def save_package(
    folder: Path | str,
    network: Segmentor,
    *,
    segmentor: Mapping[str, Any],
    preprocessing: Preprocessing,
    labels: Mapping[str, int | str | list[int]],
    card: Mapping[str, Any],
    needs: str | None = None,
) -> Path:
    """Write a package, whole or not at all; an older one of that name is replaced only by a complete one.

    segmentor: name, size, options, in_channels, classes, condition (a dictionary, a Condition, or None); the option
    `pretrained` is left out, since the weights are in the package. card: see `preceptor.delivery.card`.
    needs: the privilege; left out, that of the condition's name.
    Raises StorageError where `folder` is something else, the disk is full, weights are not finite, or the description
    does not rebuild this very network.
    """
    folder = Path(folder)
    condition = segmentor.get("condition")
    if isinstance(condition, Condition):
        condition = {"kind": condition.kind, "length": condition.length, "width": condition.width}
    options = {key: value for key, value in segmentor.get("options", {}).items() if key != "pretrained"}
    state = network.state_dict()
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise StorageError(
            "the network's weights are not finite, so it is not packaged", where=folder, offenders=broken
        )
    with storage.replacing_folder(folder, DESCRIPTION) as fresh:
        storage.write_tensors(fresh / WEIGHTS, state)
        description = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "preceptor": __version__,
            "segmentor": {**segmentor, "options": options, "condition": condition},
            "preprocessing": preprocessing.to_dict(),
            "labels": dict(labels),
            "needs": needs or (condition["kind"] if condition else "none"),
            "weights": {
                "file": WEIGHTS,
                "sha256": storage.hash_file(fresh / WEIGHTS),
                "parameters": learnable_parameters(network),
            },
            "card": _public(card),
        }
        storage.write_json(fresh / DESCRIPTION, description)
        storage.write_text(fresh / CARD, render_card(description))
        _checked(fresh, folder)
    return folder


def load_package(path: Path | str) -> Package:
    """Read a package from its folder or from a zip of it.

    Raises StorageError (or its UntrustedFileError) that says why, for what is no package, is of another format version,
    is damaged, or could harm.
    """
    path = Path(path)
    if not path.is_file():
        return _load(path, path)
    with storage.unpacked(path) as folder:
        inner = [entry for entry in folder.iterdir() if entry.is_dir()]
        nested = not (folder / DESCRIPTION).exists() and len(inner) == 1
        return _load(inner[0] if nested else folder, path)


def update_card(folder: Path | str, facts: Mapping[str, Any]) -> None:
    """Add facts, such as measured figures, to the card of a package."""
    folder = Path(folder)
    _, description = _checked(folder, folder)
    content = description.model_dump(mode="json")
    content["card"] |= _public(facts)
    storage.write_text(folder / CARD, render_card(content))
    storage.write_json(folder / DESCRIPTION, content)


PLACES = {"root": "", "folder": None, "features": None, "attributes": None, "diffusion": None}
"""Keys of a recipe that name files or folders, at any depth, and what a card says instead of a text or texts."""


def _public(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card without the folders of the machine that it was made on, which may name people or patients."""
    result = dict(card)
    if isinstance(recipe := result.get("recipe"), Mapping):
        result["recipe"] = _without_places(recipe)
    return result


def _without_places(part: Any) -> Any:
    if isinstance(part, str) and Path(part).is_absolute():
        return Path(part).name  # an encoder's folder, a file of pretrained weights
    if not isinstance(part, Mapping):
        return part
    found: dict[str, Any] = {
        # a class may be called "root" as well: its value is a number
        key: PLACES[key] if key in PLACES and isinstance(value, str | list) else _without_places(value)
        for key, value in part.items()
    }
    taken = [found.get("teacher"), found.get("control"), *(found.get("teachers") or {}).values()]
    for arm in taken:
        if isinstance(arm, dict) and "source" in arm:
            arm["source"] = None
    return found


def _load(folder: Path, where: Path) -> Package:
    preprocessing, description = _checked(folder, where)
    network = description.segmentor.build()
    tensors, _ = storage.read_tensors(folder / WEIGHTS)
    network.load_state_dict(tensors)
    return Package(
        network.eval(),
        preprocessing,
        description.labels,
        description.segmentor.model_dump(mode="json"),
        description.card,
        description.needs,
        description.weights.sha256,
    )


def _checked(folder: Path, where: Path) -> tuple[Preprocessing, _Description]:
    """Everything that can be known to be wrong before a tensor is read."""
    _refuse_strange_files(folder, where)
    description = _read_description(folder / DESCRIPTION, where)
    preprocessing = Preprocessing.from_dict(description.preprocessing)
    storage.refuse_unsafe_tensor_file(folder / WEIGHTS)
    found = storage.hash_file(folder / WEIGHTS)
    if found != description.weights.sha256:
        raise StorageError(
            "the weights are not those that the package describes: the file was damaged, cut short or exchanged",
            where=where / WEIGHTS,
            found=f"{(folder / WEIGHTS).stat().st_size} bytes, sha256 {found[:16]}...",
            expected=f"sha256 {description.weights.sha256[:16]}...",
            remedy="copy the package again from where it came",
        )
    _compare_tensors(folder, where, description, preprocessing)
    return preprocessing, description


def _refuse_strange_files(folder: Path, where: Path) -> None:
    if not (folder / DESCRIPTION).exists() or not (folder / WEIGHTS).exists():
        missing = [name for name in (DESCRIPTION, WEIGHTS) if not (folder / name).exists()]
        inside = next((f for f in (folder / "package", folder / "student") if (f / DESCRIPTION).is_file()), None)
        raise StorageError(
            "this is no package",
            where=where,
            found=f"{' and '.join(missing)} missing" if folder.is_dir() else "no such folder",
            expected=f"a folder with {DESCRIPTION} and {WEIGHTS}",
            remedy=f"did you mean {inside}?" if inside else "name the folder `package` of a run",
        )
    for entry in sorted(folder.iterdir()):
        found = entry.name
        if entry.is_symlink():
            remedy = "copy the package with its links resolved (cp -L)"
            raise UntrustedFileError("the package holds a link", where=where, found=found, remedy=remedy)
        if not entry.is_file():
            raise UntrustedFileError("the package holds something that is no file", where=where, found=found)
        if entry.suffix.lower() in PICKLED or (entry.name != WEIGHTS and _starts_pickled(entry)):
            raise UntrustedFileError(
                "the package holds a file that can execute code when it is loaded",
                where=where,
                found=found,
                remedy="remove it; `preceptor import-weights` converts pickled checkpoints",
            )
        if entry.suffix.lower() not in HARMLESS and not entry.name.startswith((".", "LICENSE", "NOTICE")):
            raise UntrustedFileError(
                "the package holds a file that does not belong in one",
                where=where,
                found=found,
                expected=f"files ending in {', '.join(sorted(HARMLESS))}",
                remedy="remove it if you know where it came from",
            )


def _starts_pickled(path: Path) -> bool:
    with open(path, "rb") as file:
        return storage.looks_pickled(file.read(2))


def _read_description(path: Path, where: Path) -> _Description:
    if path.stat().st_size > DESCRIPTION_LIMIT:
        raise UntrustedFileError("the description is absurdly long", where=where / DESCRIPTION)
    content = storage.read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StorageError(
            "this is no description of a package", where=where / DESCRIPTION, expected=f"format {FORMAT}"
        )
    version = content.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        newer = type(version) is int and version > FORMAT_VERSION
        raise StorageError(
            f"the package has {'a newer' if newer else 'an older or unknown'} format than this version can read",
            where=where,
            found=f"format version {version!r}, written by preceptor {content.get('preceptor', '(unknown)')}",
            expected=f"format version {FORMAT_VERSION}; this is preceptor {__version__}",
            remedy="update preceptor" if newer else "write the package again with this version",
        )
    try:
        description = _Description.model_validate(content)
    except ValidationError as error:
        faults = explain(error, _Description)
        raise StorageError("the description is not valid", where=where / DESCRIPTION, offenders=faults) from error
    segmentor = description.segmentor
    faults = []
    if len(description.labels) != segmentor.classes:
        faults.append(f"{len(description.labels)} labels for {segmentor.classes} classes")
    privilege = PRIVILEGES.get(description.needs)
    if privilege is None:
        faults.append(f"needs {description.needs!r}, which this version does not know ({', '.join(PRIVILEGES)})")
    elif (privilege.reading and privilege.reading.kind) != (segmentor.condition and segmentor.condition.kind):
        faults.append(f"needs {description.needs!r}, but the segmentor's condition says otherwise")
    if "pretrained" in segmentor.options:
        faults.append("the option pretrained would fetch weights from elsewhere; a package has its own")
    if faults:
        raise StorageError("the description contradicts itself", where=where / DESCRIPTION, offenders=faults)
    return description


def _compare_tensors(folder: Path, where: Path, description: _Description, preprocessing: Preprocessing) -> None:
    """Names and shapes in the file against those of the described network, which takes no memory on the meta device."""
    try:
        with torch.device("meta"):
            network = description.segmentor.build()
    except RecipeError as error:
        raise StorageError(
            "the package describes a segmentor that this version does not have",
            where=where,
            found=error.found if error.found is not None else error.what,
            remedy=error.remedy or "update preceptor",
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        options = description.segmentor.options
        raise StorageError("the segmentor's options are not possible", where=where, found=options) from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = storage.tensor_shapes(folder / WEIGHTS)
    faults = [f"{name}: missing" for name in expected if name not in found]
    faults += [f"{name}: not part of the network" for name in found if name not in expected]
    faults += [
        f"{name}: {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    if faults:
        name = description.segmentor.name
        raise StorageError(f"the weights do not fit the segmentor {name}", where=where / WEIGHTS, offenders=faults)
    wrong = any(side % network.divisor or side > SIDE_LIMIT for side in preprocessing.size)
    if wrong or preprocessing.channels != network.in_channels:
        raise StorageError(
            "the preprocessing does not fit the segmentor",
            where=where,
            found=f"{preprocessing.channels} channels of {preprocessing.size[0]} x {preprocessing.size[1]} pixels",
            expected=f"{network.in_channels} channels, sides divisible by {network.divisor} and at most {SIDE_LIMIT}",
        )
