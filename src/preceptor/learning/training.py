"""The training of one arm: optimiser, learning rate, clipping, early stopping, and a resume that leaves no trace.

Devices, processes, precision and gradient synchronisation are Lightning Fabric's. The loop itself is ours for one
reason: everything random (order, augmentation, dropout) is a pure function of (seed, epoch, case or step), so that a
checkpoint in mid-epoch is a position, and a killed run goes on with the very losses of the uninterrupted one.
"""

import json
import logging
import math
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from preceptor.data.loading import Batch, EvaluationLoader, TrainingLoader
from preceptor.errors import Interrupted, RecipeError, TrainingError
from preceptor.learning.checkpoints import load_checkpoint, load_optimizer, save_checkpoint
from preceptor.learning.memory_layout import channels_may_lie_last
from preceptor.learning.optimization import learning_rate, make_optimizer
from preceptor.learning.stopping import asked_to_stop
from preceptor.learning.tasks import Distilled, Supervised
from preceptor.learning.trace import NoTrace, Trace, write_table
from preceptor.learning.validation import Validation
from preceptor.progress import Progress
from preceptor.recipe import TrainingRecipe
from preceptor.storage import write_json, write_tensors

AGREED_STEPS = 10


@dataclass
class Position:
    """Where a training is, all of it written into a checkpoint. `batch` counts the batches of the epoch done so far."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    bad_in_row: int = 0
    skipped: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed there in hardware that is faster than float32's."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Of x86 processors, those with matrix tiles: AVX-512's own bf16 gives convolutions half the speed of float32.
    tiles = torch.cpu._is_amx_tile_supported() or platform.machine().lower() not in ("x86_64", "amd64")
    return device.type == "cpu" and tiles and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def make_fabric(settings: TrainingRecipe) -> Any:
    """A Lightning Fabric for the recipe's accelerator, devices, nodes, strategy and precision."""
    from lightning.fabric import Fabric

    for name in ("lightning.fabric", "lightning.pytorch"):  # whichever was imported last is told of the precision
        logging.getLogger(name).setLevel(logging.WARNING)
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    fast = has_fast_bf16(torch.device("cuda" if accelerator in ("cuda", "gpu") else "cpu"))
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and fast)
    strategy = settings.strategy
    if strategy == "auto" and settings.devices not in (1, "1") and settings.nodes == 1:
        strategy = "ddp_spawn"  # the pipeline stays in one process; only the training is many
    try:
        return Fabric(
            accelerator=accelerator,
            devices=cast(Any, settings.devices),
            num_nodes=settings.nodes,
            strategy=strategy,
            precision="bf16-mixed" if bf16 else "32-true",
        )
    except (
        ImportError,
        RuntimeError,
        ValueError,
    ) as error:  # Lightning has no type of its own for what a machine lacks
        raise RecipeError(
            "Lightning cannot train with these settings on this machine",
            where="training.accelerator, devices, strategy",
            found=f"{settings.accelerator}, {settings.devices}, {settings.strategy}: {error}",
            remedy="set training.accelerator=auto and training.devices=1, or what the machine has",
        ) from error


class Training:
    """One arm's training in one process of possibly many.

    folder gets `checkpoints/`, `metrics.csv` (a line an epoch), `steps.csv` (a line an optimiser step),
    `best.safetensors` (the network at its best validation Dice) and, once over, `done.json`.
    """

    def __init__(
        self,
        fabric: Any,
        task: Supervised | Distilled,
        train: TrainingLoader,
        validation: EvaluationLoader,
        settings: TrainingRecipe,
        folder: Path,
        seed: int,
        progress: Progress,
        name: str,
    ) -> None:
        self.fabric, self.settings, self.folder, self.seed = fabric, settings, folder, seed
        self.train, self.progress, self.name = train, progress, name
        self.bare, self.position = task, Position()
        self.trace = (Trace if fabric.is_global_zero else NoTrace)(folder / "steps.csv")
        self.stop_asked = False
        self.channels_last = settings.channels_last and channels_may_lie_last(task, fabric.device)
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(settings, [p for p in task.parameters() if p.requires_grad], fabric.device)
        self.task, self.optimizer = fabric.setup(task, optimizer)
        if isinstance(task, Distilled):
            for teacher in task.teachers.values():
                teacher.to(fabric.device)
                if self.channels_last:
                    teacher.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.validation = Validation(fabric, validation, self._ready)

    def run(self) -> Position:
        """Train to the end, going on from the newest whole checkpoint.

        Raises TrainingError for losses that stay non-finite or memory that is too small, Interrupted after SIGTERM.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        with asked_to_stop(self._ask_to_stop, signal.SIGTERM), self._explained():
            while not self._over():
                self._epoch()
        if isinstance(self.bare, Distilled):
            for teacher in self.bare.teachers.values():
                teacher.check_unchanged()
        if self.fabric.is_global_zero:
            self._write_done()
        self.fabric.barrier()
        return self.position

    def _over(self) -> bool:
        at, settings = self.position, self.settings
        # Epochs in between were not validated: they tell nothing of whether the network still gets better.
        validated = at.epoch - at.epoch % settings.validate_every
        waited = validated - 1 - at.best_epoch
        stalled = 0 < settings.patience <= waited and at.epoch >= settings.min_epochs and at.best_epoch >= 0
        return at.batch == 0 and (at.epoch >= settings.epochs or stalled)

    def _epoch(self) -> None:
        at = self.position
        self.train.load_state_dict({"epoch": at.epoch, "position": at.batch})
        total = len(self.train)
        self.progress.start(f"{self.name}, epoch {at.epoch + 1}/{self.settings.epochs}", total, at.batch)
        self.task.train()
        began = saved = time.monotonic()
        for batch in self.train:
            at.batch += 1
            closes = at.batch % self.settings.accumulate == 0 or at.batch == total
            if (at.batch - 1) % self.settings.accumulate == 0:
                self._draw_from(at.step)
            losses = self._accumulate(batch, closes, total)
            if closes:
                self._update(losses, total)
                late = time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes
                if at.batch < total and self._any_process(late or self.stop_asked):
                    at.seconds += time.monotonic() - began
                    began = saved = self._save()
                    self._stop_if_asked()
            self.progress.advance(1, loss=at.sums["loss"] / max(at.sums["batches"], 1), **self._best_so_far())
        at.seconds += time.monotonic() - began
        self._close_epoch()

    def _draw_from(self, step: int) -> None:
        """Dropout and the like draw from (seed, step, process) alone."""
        torch.manual_seed((self.seed * 1_000_003 + step) * 1_009 + self.fabric.global_rank)

    def _ready(self, batch: Batch) -> Batch:
        batch = batch.to(self.fabric.device)
        if self.channels_last:
            batch.image = batch.image.contiguous(memory_format=torch.channels_last)
        return batch

    def _accumulate(self, batch: Batch, closes: bool, total: int) -> dict[str, torch.Tensor]:
        """Forward and backward of one batch; gradients of `accumulate` batches add up to their mean."""
        at, settings = self.position, self.settings
        first = at.batch - 1 - (at.batch - 1) % settings.accumulate
        share = 1 / min(settings.accumulate, total - first)
        if isinstance(self.bare, Distilled):
            self.bare.done = (at.epoch + first / total) / settings.epochs
        with self.fabric.no_backward_sync(self.task, enabled=not closes):
            losses = self.task(self._ready(batch))
            self.fabric.backward(losses["loss"] * share)
        losses = {name: value.detach() for name, value in losses.items()}
        for name, value in losses.items():
            at.sums[name] = at.sums.get(name, 0.0) + value.item()
        at.sums["batches"] = at.sums.get("batches", 0.0) + 1
        self.last_cases = batch.cases
        return losses

    def _update(self, losses: dict[str, torch.Tensor], total: int) -> None:
        """One optimiser step; a step whose gradient is not finite is left out and counted (fault 17)."""
        at, settings = self.position, self.settings
        rate = learning_rate(settings, at.epoch, (at.batch - 1) / total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        limit = settings.clip or math.inf
        norm = nn.utils.clip_grad_norm_([p for p in self.bare.parameters() if p.grad is not None], limit).item()
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at.bad_in_row = 0 if finite else at.bad_in_row + 1
        at.skipped += not finite
        at.step += 1
        row = {"step": at.step, "epoch": at.epoch, **{name: value.item() for name, value in losses.items()}}
        self.trace.add({**row, "gradient": norm, "lr": rate, "skipped": int(not finite)})
        if at.bad_in_row >= settings.bad_steps:
            self._give_up(row)

    def _give_up(self, row: dict[str, Any]) -> None:
        dump = self.folder / "bad_batch.json"
        if self.fabric.is_global_zero:
            write_json(dump, {"cases": self.last_cases, **row})
        raise TrainingError(
            f"the loss or its gradient was not finite in {self.settings.bad_steps} steps in a row",
            where=self.name,
            found=", ".join(f"{name} {value}" for name, value in row.items()),
            remedy=f"look at the cases in {dump}; try a smaller training.lr or training.precision=float32",
        )

    def _close_epoch(self) -> None:
        at, settings = self.position, self.settings
        count = at.sums.pop("batches")
        row = {"epoch": at.epoch, "step": at.step, "lr": learning_rate(settings, at.epoch, 1.0)}
        row |= {f"train_{name}": value / count for name, value in at.sums.items()}
        last = at.epoch + 1 >= settings.epochs
        if (at.epoch + 1) % settings.validate_every == 0 or last:
            began = time.monotonic()
            self._share_statistics()
            scores = self.validation(self.bare)
            at.seconds += time.monotonic() - began
            row |= {f"val_{name}": value for name, value in scores.items()}
            value = scores[settings.monitor]
            if value > at.best:
                at.best, at.best_epoch = value, at.epoch
                if self.fabric.is_global_zero:
                    self._write_best()
        row |= {"seconds": round(at.seconds, 3), "skipped": at.skipped}
        at.history.append(row)
        at.epoch, at.batch, at.sums = at.epoch + 1, 0, {}
        validated = {"val_dice": row[f"val_{settings.monitor}"]} if f"val_{settings.monitor}" in row else {}
        self.progress.finish(loss=row["train_loss"], **validated, best=at.best)
        self._save()
        if not self._over():
            self._stop_if_asked()

    def _share_statistics(self) -> None:
        """Every process validates the network that the first one saves: its running statistics."""
        if self.fabric.world_size > 1:
            for buffer in self.bare.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _ask_to_stop(self, number: int) -> None:
        """SIGTERM (preemption) lets the step finish, saves and stops."""
        self.stop_asked = True

    def _any_process(self, asked: bool) -> bool:
        """Whether one of the processes asks to save; they agree every few steps, since each has its own clock."""
        if self.fabric.world_size > 1 and self.position.step % AGREED_STEPS:
            return False
        return self._in_any(asked)

    def _in_any(self, flag: bool) -> bool:
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum") > 0)

    def _stop_if_asked(self) -> None:
        if self._in_any(self.stop_asked):
            raise Interrupted(self.name)

    def _best_so_far(self) -> dict[str, float]:
        return {"best": self.position.best} if self.position.best_epoch >= 0 else {}

    def _save(self) -> float:
        """Write the checkpoint and the tables that go with it; gives the time."""
        if self.fabric.is_global_zero:
            self.trace.write()
            state = {
                "task": self.bare.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "position": dict(vars(self.position)),
            }
            save_checkpoint(self.folder / "checkpoints", state)
            write_table(self.folder / "metrics.csv", self.position.history)
        self.fabric.barrier()
        return time.monotonic()

    def _resume(self) -> None:
        state, note = load_checkpoint(self.folder / "checkpoints")
        if note:
            self.progress.note(f"{self.name}: {note}")
        if state is None:
            self.trace.cut(0)
            return
        self.bare.load_state_dict(state["task"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.position = Position(**state["position"])
        self.trace.cut(self.position.step)
        at = self.position
        if not self._over():
            self.progress.note(f"{self.name}: going on from epoch {at.epoch + 1}, batch {at.batch + 1}")

    def _write_best(self) -> None:
        note = {"epoch": str(self.position.best_epoch), self.settings.monitor: repr(self.position.best)}
        write_tensors(self.folder / "best.safetensors", self.bare.network.state_dict(), note)

    def _write_done(self) -> None:
        at = self.position
        write_json(
            self.folder / "done.json",
            {
                "epochs": at.epoch,
                "planned_epochs": self.settings.epochs,
                "steps": at.step,
                "best_epoch": at.best_epoch,
                "best": at.best,
                "minutes": at.seconds / 60,
                "skipped_steps": at.skipped,
            },
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Memory that runs out becomes a message with the measured peak and a smaller setting (fault 18)."""
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            device = self.fabric.device
            peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
            batch = self.settings.batch_size
            raise TrainingError(
                "the memory is too small for this training",
                where=self.name,
                found=f"a peak of {peak:.1f} GiB" if peak else str(error),
                remedy=f"set training.batch_size={max(1, batch // 2)} and training.accumulate="
                f"{2 * self.settings.accumulate}, or a smaller data.image_size, and give the same command again",
            ) from error


def is_done(folder: Path, settings: TrainingRecipe) -> bool:
    """Whether the arm in `folder` was trained to the end that the settings ask for."""
    path = folder / "done.json"
    if not path.exists() or not (folder / "best.safetensors").exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["planned_epochs"] == settings.epochs
