"""The pre-training of a diffusion U-Net: predict the noise that was added to a picture (DDPM, arXiv 2006.11239).

Everything random (order, crops, timesteps, noise) is a pure function of (seed, step), as in `learning.training`, so
that a checkpoint is a position and a killed training goes on with the very losses of the uninterrupted one.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from preceptor.delivery.writers import write_png
from preceptor.errors import Interrupted, RecipeError, TrainingError
from preceptor.learning.checkpoints import load_checkpoint, load_optimizer, save_checkpoint
from preceptor.learning.diffusion_pictures import PicturePool
from preceptor.learning.diffusion_samples import draw_samples, picture_grid
from preceptor.learning.memory_layout import channels_may_lie_last
from preceptor.learning.stopping import asked_to_stop
from preceptor.learning.trace import Trace, write_table
from preceptor.learning.training import has_fast_bf16
from preceptor.progress import Progress
from preceptor.recipe_diffusion import DiffusionRecipe
from preceptor.segmentors.diffusion import STEPS, DiffusionShape, NoiseSchedule, diffusion_unet, write_diffusion
from preceptor.storage import write_json

WEIGHTS = "diffusion.safetensors"


class Noised(NamedTuple):
    """Pictures [B, C, H, W] with noise in them, the timestep of each [B], and the noise to predict."""

    pictures: Tensor
    timesteps: Tensor
    noise: Tensor


@dataclass
class Position:
    """Where a training is, all of it written into a checkpoint; the losses' sum since the last line of `history`."""

    step: int = 0
    bad_in_row: int = 0
    skipped: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class DiffusionTraining:
    """One U-Net's training in one process.

    folder gets `checkpoints/`, `losses.csv` (a line a step), `validation.csv`, `samples/step-NNNNNN.png`, at every
    checkpoint `diffusion.safetensors` with the averaged weights and, once over, `done.json`.
    """

    def __init__(
        self,
        settings: DiffusionRecipe,
        shape: DiffusionShape,
        train: PicturePool,
        held_out: PicturePool | None,
        folder: Path,
        progress: Progress,
    ) -> None:
        from diffusers.training_utils import EMAModel

        self.settings, self.shape, self.train, self.held_out = settings, shape, train, held_out
        self.folder, self.progress, self.position = folder, progress, Position()
        self.device = _device(settings.device)
        fast = has_fast_bf16(self.device)
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and fast)
        schedule = NoiseSchedule.linear()
        self.mix = torch.tensor([schedule.signal.tolist(), schedule.noise.tolist()], dtype=torch.float32)
        torch.manual_seed(settings.seed)
        self.unet = diffusion_unet(shape, dropout=settings.dropout).to(self.device)
        self.channels_last = settings.channels_last and channels_may_lie_last(self.unet, self.device)
        if self.channels_last:
            self.unet.to(memory_format=torch.channels_last)
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.unet.parameters(), lr=settings.lr, fused=fused)
        self.average = EMAModel(self.unet.parameters(), decay=settings.ema, foreach=True)
        self.trace = Trace(folder / "losses.csv")
        self.stop_asked = 0

    def run(self) -> Position:
        """Train to the end, going on from the newest whole checkpoint.

        Raises RecipeError where more steps are done than are asked for, TrainingError for losses that stay non-finite
        or memory that is too small, Interrupted after SIGTERM and KeyboardInterrupt after Ctrl-C, both with everything
        saved.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        at, settings = self.position, self.settings
        if at.step > settings.steps:
            raise RecipeError(
                "more steps are done than are asked for",
                where=self.folder,
                found=f"{at.step} done",
                expected=f"at most {settings.steps}, as `steps` says",
                remedy=f"set steps={at.step} to end there, more to go on, or name another folder with --out",
            )
        self.progress.start("pre-train diffusion", settings.steps, at.step)
        with asked_to_stop(self._ask_to_stop, signal.SIGTERM, signal.SIGINT), _explained(settings):
            saved = time.monotonic()
            while at.step < settings.steps:
                began = time.monotonic()
                self._step()
                if at.step % settings.validate_every == 0 or at.step == settings.steps:
                    self._validate()
                if settings.sample_every and (at.step % settings.sample_every == 0 or at.step == settings.steps):
                    self._sample()
                at.seconds += time.monotonic() - began
                if time.monotonic() - saved >= 60 * settings.checkpoint_minutes or self.stop_asked:
                    self._save()
                    saved = time.monotonic()
                    self._stop_if_asked()
            if not at.history or at.history[-1]["step"] < at.step:  # it was stopped at what is now its last step
                self._validate()
            self._save()
        self.progress.finish(loss=at.history[-1]["train"], **self._judged())
        self._write_done()
        return at

    def _step(self) -> None:
        at, settings = self.position, self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (at.step + 1) / max(1, settings.warmup_steps))
        numbers = self.order(at.step)
        generator = _generator(settings.seed, at.step)
        batch = self.noised(self.train.crops(numbers, generator), generator)
        torch.manual_seed(settings.seed * 1_000_003 + at.step)  # for the dropout
        self.unet.train()
        loss = self._loss(batch).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.unet.parameters(), settings.clip or math.inf).item()
        value, finite = loss.item(), math.isfinite(norm)
        if finite:
            self.optimizer.step()
            self.average.step(self.unet.parameters())
            at.loss_sum, at.loss_count = at.loss_sum + value, at.loss_count + 1
        self.optimizer.zero_grad(set_to_none=True)
        at.bad_in_row = 0 if finite else at.bad_in_row + 1
        at.skipped += not finite
        at.step += 1
        row = {"step": at.step, "loss": value, "gradient": norm, "lr": group["lr"], "skipped": int(not finite)}
        self.trace.add(row)
        if at.bad_in_row >= settings.bad_steps:
            self._give_up(row, [self.train.names[number] for number in numbers])
        self.progress.advance(1, loss=at.loss_sum / max(at.loss_count, 1), **self._judged())

    def _judged(self) -> dict[str, float]:
        """The last loss on held-out pictures, as the progress tells it."""
        last = self.position.history[-1:]
        return {"held out": last[0]["held_out"]} if last and "held_out" in last[0] else {}

    def order(self, step: int) -> list[int]:
        """Which pictures a step sees: every picture once before any is seen again, in an order that always changes."""
        size, count = self.settings.batch_size, len(self.train)
        rounds: dict[int, list[int]] = {}
        numbers = []
        for place in range(step * size, (step + 1) * size):
            number, at = divmod(place, count)
            if number not in rounds:
                rounds[number] = torch.randperm(count, generator=_generator(self.settings.seed, number, 1)).tolist()
            numbers.append(rounds[number][at])
        return numbers

    def noised(self, pictures: Tensor, generator: torch.Generator, timesteps: Tensor | None = None) -> Noised:
        """Pictures [B, C, H, W] at random timesteps, or at those given. All is drawn on the CPU."""
        if timesteps is None:
            timesteps = torch.randint(STEPS, (len(pictures),), generator=generator)
        noise = torch.randn(pictures.shape, generator=generator)
        signal_share, noise_share = self.mix[:, timesteps].view(2, -1, 1, 1, 1)
        return Noised(signal_share * pictures + noise_share * noise, timesteps, noise)

    def predict(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise in pictures [B, C, H, W], float32, on the device."""
        noisy = noisy.to(self.device)
        if self.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.unet(noisy, timesteps.to(self.device)).sample.float()

    def _loss(self, batch: Noised) -> Tensor:
        """The mean squared error of each picture [B]."""
        found = self.predict(batch.pictures, batch.timesteps)
        return functional.mse_loss(found, batch.noise.to(self.device), reduction="none").mean((1, 2, 3))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The U-Net has the averaged weights, and is in eval mode without gradient."""
        self.average.store(self.unet.parameters())
        self.average.copy_to(self.unet.parameters())
        self.unet.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.average.restore(self.unet.parameters())

    def _validate(self) -> None:
        """A line of history: the mean loss since the last, and the averaged weights' on noise that never changes."""
        at = self.position
        row: dict[str, float] = {"step": at.step, "train": at.loss_sum / max(at.loss_count, 1)}
        with self.averaged():
            for name, pool in (("learned", self.train), ("held_out", self.held_out)):
                if pool is not None:
                    row[name] = self.fixed_loss(pool)
        at.history.append({**row, "seconds": round(at.seconds, 1), "skipped": at.skipped})
        write_table(self.folder / "validation.csv", at.history)
        at.loss_sum, at.loss_count = 0.0, 0
        told = "".join(f", {name.replace('_', ' ')} {row[name]:.4f}" for name in ("learned", "held_out") if name in row)
        self.progress.note(f"step {at.step}: loss {row['train']:.4f}; averaged weights, fixed noise{told}")

    def fixed_loss(self, pool: PicturePool) -> float:
        """The mean loss of as many fixed crops as the settings ask for, their timesteps spread over the schedule."""
        count, generator = self.settings.validation_crops, _generator(self.settings.seed, 0, 2)
        timesteps = torch.linspace(0, STEPS - 1, count).round().long()
        losses = []
        for start in range(0, count, self.settings.batch_size):
            numbers = range(start, min(start + self.settings.batch_size, count))
            crops = pool.crops([number * 7919 % len(pool) for number in numbers], generator, plain=True)
            losses.append(self._loss(self.noised(crops, generator, timesteps[numbers.start : numbers.stop])).cpu())
        return torch.cat(losses).mean().item()

    def _sample(self) -> None:
        settings = self.settings
        with self.averaged():
            pictures = draw_samples(self.predict, self.shape, settings.samples, settings.sample_steps, settings.seed)
        write_png(self.folder / "samples" / f"step-{self.position.step:06d}.png", picture_grid(pictures))

    def _save(self) -> None:
        self.trace.write()
        state = {
            "unet": self.unet.state_dict(),
            "average": self.average.shadow_params,
            "averaged_steps": self.average.optimization_step,
            "optimizer": self.optimizer.state_dict(),
            "position": dict(vars(self.position)),
        }
        save_checkpoint(self.folder / "checkpoints", state)
        with self.averaged():
            write_diffusion(self.folder / WEIGHTS, self.shape, self.unet.state_dict())

    def _resume(self) -> None:
        state, note = load_checkpoint(self.folder / "checkpoints")
        if note:
            self.progress.note(note)
        if state is None:
            self.trace.cut(0)
            return
        self.unet.load_state_dict(state["unet"])
        load_optimizer(self.optimizer, state["optimizer"])
        for held, value in zip(self.average.shadow_params, state["average"], strict=True):
            held.copy_(value)
        self.average.optimization_step = state["averaged_steps"]
        self.position = Position(**state["position"])
        self.trace.cut(self.position.step)
        self.progress.note(f"going on from step {self.position.step + 1}")

    def _give_up(self, row: dict[str, Any], names: list[str]) -> None:
        dump = self.folder / "bad_batch.json"
        self.trace.write()
        write_json(dump, {"pictures": names, **row})
        raise TrainingError(
            f"the loss or its gradient was not finite in {self.settings.bad_steps} steps in a row",
            where=self.folder,
            found=", ".join(f"{name} {value}" for name, value in row.items()),
            remedy=f"look at the pictures in {dump}; try a smaller lr or precision=float32",
        )

    def _ask_to_stop(self, number: int) -> None:
        """SIGTERM (preemption) and a first Ctrl-C let the step finish and save; a second Ctrl-C does not wait."""
        if self.stop_asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.stop_asked = number

    def _stop_if_asked(self) -> None:
        if self.stop_asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stop_asked:
            raise Interrupted(str(self.folder))

    def _write_done(self) -> None:
        at = self.position
        last = {name: at.history[-1][name] for name in ("train", "learned", "held_out") if name in at.history[-1]}
        content = {"steps": at.step, "minutes": at.seconds / 60, "skipped_steps": at.skipped, "loss": last}
        write_json(self.folder / "done.json", content)


def _generator(*numbers: int) -> torch.Generator:
    """Of numbers that belong to (seed, step, purpose) alone."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(value)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("there is no such device", where="device", found=name, expected="cpu, or auto")
    return torch.device(name)


@contextmanager
def _explained(settings: DiffusionRecipe) -> Iterator[None]:
    """Memory that runs out becomes a message with a smaller setting."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            "the memory is too small for this training",
            found=str(error).splitlines()[0] if str(error) else None,
            remedy=f"set batch_size={max(1, settings.batch_size // 2)}, a smaller image_size or another shape",
        ) from error
