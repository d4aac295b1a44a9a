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


def _matrix_names(incomplete: str) -> list[str]:
    from preceptor.matrix import shipped_matrices

    return [name for name in shipped_matrices() if name.startswith(incomplete)]


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(help="A matrix (file or shipped name), or finished run folders.", autocompletion=_matrix_names),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default runs/NAME of the matrix.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Runs at a time; default 1, one a device, or 64 of slurm.")
    ] = None,
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
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the matrix: --set recipe.training.epochs=3"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a matrix of teachers, students and distillers, or take finished runs, and rank them in one table.

    The same command goes on where a stopped one left off, and tries failed runs again. Exit code 1 if runs failed.
    """
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    if not folders and len(sources) == 1:
        if intersect:
            raise UserError("the runs of a matrix are judged on the same cases", where="--intersect", remedy="leave it")
        _compare_matrix(sources[0], out, (launcher, jobs, devices, cluster or []), changes or [], quiet)
        return
    if len(folders) < len(sources):
        raise UserError(
            "either one matrix or several run folders are compared",
            offenders=[f"{source}: no folder" for source in sources if not Path(source).is_dir()],
        )
    if out is None:
        raise UserError("finished runs are compared into a folder, which is missing", remedy="name it with --out")
    unfit = {"--set": changes, "--jobs": jobs, "--devices": devices, "--cluster": cluster}
    given = next((name for name, value in unfit.items() if value), None)
    if given:
        raise UserError("nothing is run to compare finished runs", where=given, remedy=f"leave {given} out")
    from preceptor.compare import compare_runs

    _tell(compare_runs(folders, out, intersect))


def _compare_matrix(
    source: str, out: Path | None, where: tuple[str, int | None, str, list[str]], changes: list[str], quiet: bool
) -> None:
    from preceptor.compare import compare_matrix
    from preceptor.matrix import read_matrix
    from preceptor.progress import make_progress

    matrix = read_matrix(source, changes)
    place = out or Path("runs") / matrix.name
    try:
        compared = compare_matrix(matrix, place, _launcher(place, *where), make_progress(progress_kind(quiet)))
    except KeyboardInterrupt:  # here, since typer would make a silent exit of it
        print("\nstopped; the same command goes on from the last checkpoints", file=sys.stderr)
        raise typer.Exit(130) from None
    _tell(compared)


def _launcher(folder: Path, name: str, jobs: int | None, devices: str, cluster: list[str]) -> "Launcher":
    from preceptor.launchers import Processes, Submitit

    if name not in LAUNCHERS:
        raise RecipeError("no such launcher", where=f"--launcher {name}", expected=", ".join(LAUNCHERS))
    dealt = [device.strip() for device in devices.split(",") if device.strip()]
    if name == "processes":
        if cluster:
            raise UserError("--cluster is for --launcher slurm", where=f"--cluster {cluster[0]}")
        return Processes(jobs or max(1, len(dealt)), dealt)
    if dealt:
        raise UserError(
            "a cluster deals its devices itself",
            where=f"--devices {devices}",
            remedy="ask for them with --cluster gpus_per_node=1",
        )
    parameters: dict[str, Any] = {}
    for pair in cluster:
        key, sign, value = pair.partition("=")
        if not (key and sign):
            raise UserError("not of the form key=value", where=f"--cluster {pair}", expected="slurm_partition=gpu")
        parameters[key] = json.loads(value) if value.isdigit() else value
    if name == "slurm":
        return Submitit(folder.resolve(), "slurm", jobs or 64, parameters)
    return Submitit(folder.resolve(), "local", jobs or 1, parameters)


def _tell(compared: "Compared") -> None:
    from preceptor.evaluation.comparison_text import as_text

    print(as_text(compared.result))
    print(compared.page)
    if compared.unfinished:
        count = len(compared.unfinished)
        print(f"{count} run{'s' * (count > 1)} did not end; the same command tries again:", file=sys.stderr)
        for item in compared.result["unfinished"]:
            print(f"  {item['run']}: {item['state']} {item['reason']}".rstrip(), file=sys.stderr)
            if item["state"] == "failed" and item["log"]:
                print(f"    see {compared.folder / item['log']}", file=sys.stderr)
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
    rule, ignore = data.mask_rule, data.ignore
    print(write_nnunet(cases, data.labels, out, name or out.name, mask_rule=rule, ignore=ignore, progress=counter))
