"""The verb that pre-trains a diffusion U-Net for TextDiff."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from preceptor.cli_options import Quiet, one_of, progress_kind, recipe_names

SHAPES = ("tiny", "small", "imagenet256")


def pretrain_diffusion(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of pictures, a data folder or recipe (its training cases), or settings (file or name).",
            autocompletion=recipe_names,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pre-training.")] = Path("runs/diffusion"),
    shape: Annotated[
        str | None, typer.Option(help="The U-Net: tiny, small or imagenet256.", autocompletion=one_of(*SHAPES))
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set steps=50000")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train an unconditional diffusion U-Net on pictures without labels, for TextDiff to read.

    The same command goes on where a stopped one left off. Pictures to test on are never learned from.
    """
    from preceptor.pretraining import pretrain_diffusion as pretrain
    from preceptor.progress import make_progress
    from preceptor.recipe_diffusion import read_diffusion_recipe

    settings = read_diffusion_recipe(source, [*([f"shape={shape}"] if shape else []), *(changes or [])])
    try:
        found = pretrain(settings, out, make_progress(progress_kind(quiet)))
    except KeyboardInterrupt:  # here, since typer would make a silent exit of it
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.loss.items())
    print(f"{found.weights}: {found.steps} steps, loss {told}")
