"""Which frozen features an arm's training can read from disk; what is missing is computed first.

Nothing here knows a network by name: whatever tells `Segmentor.frozen_shapes` has a frozen part.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from preceptor.data.augmentation import Draw
from preceptor.data.shelf import SPARE, Shelf
from preceptor.delivery.package import Package, load_package
from preceptor.errors import RecipeError, StorageError, UserError
from preceptor.learning.arm import ArmJob, build_network, segmentor_of
from preceptor.learning.cache import CachedMaps, FeatureStore, Keys, Remembering, fill, keys_of, variants_of
from preceptor.learning.privilege import PRIVILEGES, reader_of
from preceptor.progress import Progress, callback
from preceptor.recipe import Recipe, TrainingRecipe
from preceptor.segmentors.base import Segmentor

Draws = Sequence[Sequence[Draw]]


@dataclass(frozen=True)
class Plan:
    """The variants of a shelf's cases that are to be kept, and their keys."""

    shelf: Shelf
    draws: Draws
    keys: Keys

    @classmethod
    def of(cls, shelf: Shelf, draws: Draws) -> "Plan":
        """With the keys of the shelf's images."""
        return cls(shelf, draws, keys_of(shelf, draws))


def keep_frozen(job: ArmJob, folder: Path, progress: Progress) -> ArmJob:
    """`job` with the kept answers of the frozen parts of all its networks, computed where they are missing.

    folder: of all caches, unless the recipe names one. The job stays as it is where no part is frozen. Raises
    RecipeError or StorageError where the recipe insists and there is no finite augmentation, the limit is too low, or
    the disk too full; otherwise a note says so, and the training computes them in every step.
    """
    recipe = job.recipe
    if not recipe.cache.enabled:
        return job
    place = features_folder(recipe, folder)
    kept, kept_validation = dict(job.kept), dict(job.kept_validation)
    for arm, network in frozen_networks(job):
        identity = network.frozen_identity()
        if identity in kept:  # the arm and a teacher read the same
            continue
        plans = [Plan.of(job.validation, [[Draw()]] * len(job.validation))] if arm == job.arm else []
        if recipe.augment.variants:
            plans.append(Plan.of(job.train, variants_of(job.train, recipe.augment)))
        elif recipe.cache.enabled is True:
            raise _endless()
        else:
            progress.note(f"{job.name}: {_endless().what}; {_endless().remedy}")
        if not plans:
            continue
        store = FeatureStore(place / identity[:24], network.frozen_shapes(recipe.data.size))
        try:
            told = size_told(store, plans, recipe.cache.limit_gb)
        except UserError as error:
            if recipe.cache.enabled is True:
                raise
            progress.note(f"{job.name}: frozen features are not kept, so that every step computes them\n{error}")
            continue
        progress.note(f"{job.name}: {told}")
        device = filling_device(recipe.training_of(job.arm))
        network.to(device).eval()
        for plan in plans:
            name = f"frozen features of {plan.shelf.cases[0].split or 'cases'}"
            fill(store, network, plan.shelf, plan.draws, plan.keys, device, callback(progress, name))
            (kept if plan.shelf is job.train else kept_validation)[identity] = CachedMaps(store, plan.keys)
    return replace(job, kept=kept, kept_validation=kept_validation)


def frozen_networks(job: ArmJob) -> Iterator[tuple[str, Segmentor]]:
    """(arm, network) of the arm and of its teachers, as far as they have a frozen part and are shown plain images."""
    for arm in (job.arm, *job.teachers):
        privilege = job.recipe.privilege_of(arm)
        if PRIVILEGES[privilege].own_image:
            continue
        described = segmentor_of(job.recipe, arm, reader_of(privilege, job.recipe.reports, job.features))
        with torch.device("meta"):  # without memory: most networks have no frozen part
            planned = build_network({**described, "pretrained": None}, job.seed)
        if not planned.frozen_shapes(job.recipe.data.size):
            continue
        yield arm, build_network(described, job.seed) if arm == job.arm else load_package(job.teachers[arm]).network


def size_told(store: FeatureStore, plans: Sequence[Plan], limit_gb: float) -> str:
    """What is kept, its size, and how much of it is there. Raises StorageError as `require_room`."""
    keys = list(dict.fromkeys(key for plan in plans for own in plan.keys for key in own))
    parts = [f"{len(plan.keys)} {plan.shelf.cases[0].split} cases x {len(plan.keys[0])} variants" for plan in plans]
    size, missing = len(keys) * store.bytes_each, len([key for key in keys if not store.path(key).is_file()])
    told = f"frozen features of {' and '.join(parts)}, {len(keys)} different, {size / 1e9:.2f} GB in half precision"
    require_room(store, size, missing * store.bytes_each, told, limit_gb)
    state = "all there" if not missing else f"{missing * store.bytes_each / 1e9:.2f} GB of it to be computed"
    return f"{told}, under the limit of {limit_gb:g} GB; {state}"


def require_room(store: FeatureStore, size: int, needed: int, told: str, limit_gb: float) -> None:
    """Raise StorageError where `size` bytes are over the limit, or the disk has no room for the `needed` ones."""
    if size > limit_gb * 1e9:
        raise StorageError(
            "the frozen features are larger than the limit",
            where="cache.limit_gb",
            found=told,
            expected=f"at most {limit_gb:g} GB",
            remedy="set a larger cache.limit_gb, fewer augment.variants, a smaller data.image_size or a smaller frozen "
            "network, or cache.enabled=false",
        )
    there = next(parent for parent in (store.folder, *store.folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if needed and free < needed + SPARE:
        raise StorageError(
            "the disk has too little space for the frozen features",
            where=store.folder,
            found=f"{free / 1e9:.2f} GB free",
            expected=f"{(needed + SPARE) / 1e9:.2f} GB",
            remedy="free space, set cache.folder to another disk or fewer augment.variants, or cache.enabled=false",
        )


def remembering(package: Package, images: int, recipe: Recipe, folder: Path) -> Segmentor:
    """The package's network, or one of the same answers that keeps those of its frozen part.

    They are kept in float32, so that nothing is lost. images: how many are judged. folder: as in `keep_frozen`. The
    network is given back as it is where no part is frozen, the recipe keeps nothing, or the room is too small.
    """
    network = package.network
    shapes = network.frozen_shapes(package.preprocessing.size) if recipe.cache.enabled else ()
    if not shapes:
        return network
    place = features_folder(recipe, folder) / f"{network.frozen_identity()[:24]}-float32"
    store = FeatureStore(place, shapes, torch.float32)
    size = images * store.bytes_each
    try:
        require_room(store, size, size, "", recipe.cache.limit_gb)
    except StorageError:
        return network
    return Remembering(network, store)


def features_folder(recipe: Recipe, folder: Path) -> Path:
    """Where frozen features lie. folder: of all caches, unless the recipe names one."""
    return (Path(recipe.cache.folder).expanduser() if recipe.cache.folder else folder) / "features"


def filling_device(settings: TrainingRecipe) -> torch.device:
    """Where frozen features are computed: the first device that the training would use."""
    if settings.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if settings.accelerator == "mps" else "cpu")


def _endless() -> RecipeError:
    return RecipeError(
        "frozen features of training cases cannot be kept, since their augmentation never repeats",
        where="augment.variants",
        found="0, a new variant in every epoch",
        remedy="set augment.variants to the number of fixed versions of each case, for example 8",
    )
