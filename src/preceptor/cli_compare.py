"""The verbs over many runs and over whole data sets: compare, convert."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from preceptor.cli_options import Changes, Labels, Layout, Quiet, one_of, progress_kind
from preceptor.errors import RecipeError, UserError

if TYPE_CHECKING:
    from preceptor.compare import Compared
    from preceptor.launching import Launcher

LAUNCHERS = ("processes", "slurm", "submitit-local")


def compare(
    sources: Annotated[list[Path], typer.Argument(help="A matrix (file or shipped name), or finished run folders.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default runs/NAME of the matrix.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time.")] = 1,
    devices: Annotated[str, typer.Option(help="CUDA devices dealt to the runs, as 0,1,2; all see all without.")] = "",
    launcher: Annotated[
        str,
        typer.Option(
            help="Where runs run: processes of this machine, slurm, or submitit-local to try the latter here.",
            autocompletion=one_of(*LAUNCHERS),
        ),
    ] = "processes",
    cluster: Annotated[
        list[str] | None, typer.Option("--cluster", metavar="KEY=VALUE", help="For slurm: slurm_partition=gpu ...")
    ] = None,
    intersect: Annotated[bool, typer.Option(help="Of finished runs, compare the cases that all share.")] = False,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train a matrix of teachers, students and distillers, or take finished runs, and rank them in one table.

    The same command goes on where a stopped one left off, and tries failed runs again. Exit code 1 if runs failed.
    """
    from preceptor.compare import compare_matrix, compare_runs
    from preceptor.matrix import read_matrix
    from preceptor.progress import make_progress

    if all((source / "recipe.yaml").is_file() or source.is_dir() for source in sources):
        if out is None:
            raise UserError("finished runs are compared into a folder, which is missing", remedy="name it with --out")
        if changes:
            raise UserError("finished runs cannot be changed", where=f"--set {changes[0]}", remedy="leave --set out")
        _tell(compare_runs(sources, out, intersect))
        return
    if len(sources) > 1:
        raise UserError(
            "either one matrix or several run folders are compared", offenders=[s for s in sources if not s.is_dir()]
        )
    matrix = read_matrix(str(sources[0]), changes or ())
    place = out or Path("runs") / matrix.name
    runner = _launcher(launcher, place, jobs, devices, cluster or [])
    try:
        compared = compare_matrix(matrix, place, runner, make_progress(progress_kind(quiet)))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoints", file=sys.stderr)
        raise typer.Exit(130) from None
    _tell(compared)


def _launcher(name: str, folder: Path, jobs: int, devices: str, cluster: list[str]) -> "Launcher":
    from preceptor.launching import Processes, Submitit

    if name not in LAUNCHERS:
        raise RecipeError("no such launcher", where=f"--launcher {name}", expected=", ".join(LAUNCHERS))
    if name == "processes":
        if cluster:
            raise UserError("--cluster is for --launcher slurm", where=f"--cluster {cluster[0]}")
        return Processes(jobs, [device for device in devices.split(",") if device])
    parameters: dict[str, Any] = {}
    for pair in cluster:
        key, sign, value = pair.partition("=")
        if not (key and sign):
            raise UserError("not of the form key=value", where=f"--cluster {pair}", expected="slurm_partition=gpu")
        parameters[key] = json.loads(value) if value.isdigit() else value
    return Submitit(folder, "slurm" if name == "slurm" else "local", jobs, parameters)


def _tell(compared: "Compared") -> None:
    from preceptor.evaluation.comparison import as_text

    print(as_text(compared.result))
    print(compared.page)
    if compared.unfinished:
        print(f"{len(compared.unfinished)} runs did not end; the same command tries them again:", file=sys.stderr)
        for name, end in compared.unfinished.items():
            print(f"  {name}: {end.state} {end.reason}", file=sys.stderr)
        raise typer.Exit(1)


def convert(
    source: Annotated[str, typer.Argument(help="A data folder, a recipe file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must not exist.")],
    to: Annotated[str, typer.Option(help="The layout to write: nnunet.", autocompletion=one_of("nnunet"))] = "nnunet",
    name: Annotated[str, typer.Option(help="Name of the data set in its description.")] = "",
    layout: Layout = "auto",
    labels: Labels = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Write a data set in another layout: nnU-Net's raw one, with the splits as they are here."""
    from preceptor.data.layouts import read_cases
    from preceptor.data.nnunet import write_nnunet
    from preceptor.data.splits import assign_splits
    from preceptor.folder_recipes import data_of
    from preceptor.progress import callback, make_progress

    if to != "nnunet":
        raise RecipeError("no such layout to write", where=f"--to {to}", expected="nnunet")
    data, _ = data_of(source, layout=layout, labels=labels or (), changes=changes or ())
    if len(data.labels) < 2:
        raise RecipeError(
            "the classes are not named",
            where="--label",
            expected="--label background=0 --label lesion=255",
            remedy="`preceptor check` proposes them",
        )
    cases = assign_splits(read_cases(data).cases, data.split)
    counter = callback(make_progress(progress_kind(quiet)), "convert")
    print(write_nnunet(cases, data.labels, out, name=name or out.name, mask_rule=data.mask_rule, progress=counter))
