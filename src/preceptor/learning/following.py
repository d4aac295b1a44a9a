"""The other processes of a run that a launcher started several times (torchrun, SLURM): they train and do nothing else.

The process of rank 0 checks, embeds, decodes, packages and judges. It opens an arm by a marker file when everything
that the arm needs is on the shared disk; the others wait for it and join the training.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from preceptor.learning.arm import ArmJob, train_arm
from preceptor.learning.launch import cluster_rank
from preceptor.learning.training import is_done
from preceptor.recipe import TrainingRecipe

OPEN = "open"
SECONDS = 0.5


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Tell the other processes that the arm in `folder` is trained now."""
    marker = folder / OPEN
    if cluster_rank() is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def follow(arms: Iterable[tuple[Path, TrainingRecipe, Callable[[], ArmJob]]]) -> None:
    """Join each training in its order: (folder, settings, what makes its job once the arm is open).

    The launcher ends this process if rank 0 fails.
    """
    for folder, settings, job in arms:
        while not is_done(folder, settings):
            if (folder / OPEN).exists():
                train_arm(job())
                break
            time.sleep(SECONDS)
