"""The verbs of the command line. Each parses, calls the library, and prints; heavy imports are inside the verbs.

Exit codes: 0 done; 1 done, but some files failed (predict); 2 something the user can mend; 130 and 143 interrupted.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preceptor.cli_compare import compare, convert
from preceptor.cli_options import (
    SPLITS,
    Architecture,
    Changes,
    Labels,
    Layout,
    Quiet,
    RecipeName,
    Source,
    examples,
    one_of,
    progress_kind,
)
from preceptor.cli_pretrain import pretrain_diffusion
from preceptor.errors import DataError, Interrupted, RecipeError, StorageError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from preceptor.pipeline import Outcome, Stage

app = typer.Typer(
    name="preceptor",
    help="Train small segmentation networks with teachers who see more than the image: reports, attributes, capacity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: preceptor demo",
)


@app.command(epilog=examples("preceptor demo", "preceptor demo --out runs/first"))
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("runs/demo"),
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train teacher, control and student on generated chest films, and write the report. Minutes on a CPU."""
    data = json.dumps(str(out.parent / "phantoms"))
    _run("demo", out, (), quiet, [f"data.root={data}", *(changes or [])])


@app.command(
    epilog=examples(
        "preceptor run textfreekd/monuseg --set data.root=MoNuSeg",
        "preceptor run my.yaml --out runs/mine --set seeds=[0,1,2]",
        "preceptor run my.yaml --only teacher",
    )
)
def run(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/NAME.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Do only this stage: teacher, control, student or evaluate. May be given several times.",
            autocompletion=one_of("teacher", "control", "student", "evaluate"),
        ),
    ] = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Run a recipe from files to report. The same command goes on where a stopped run left off."""
    from preceptor.pipeline import STAGES

    unknown = [stage for stage in only or [] if stage not in STAGES]
    if unknown:
        raise RecipeError("no such stage", where=f"--only {unknown[0]}", expected=", ".join(STAGES))
    _run(recipe, out, only or (), quiet, changes)  # type: ignore[arg-type]


def _run(recipe: str, out: Path | None, only: "Sequence[Stage]", quiet: bool, changes: list[str] | None) -> None:
    from preceptor.pipeline import run as run_recipe

    try:
        _tell(run_recipe(recipe, out, only=only, progress=progress_kind(quiet), changes=changes or ()))
    except KeyboardInterrupt:  # here, since typer would make a silent exit of it
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None


def _tell(outcome: "Outcome") -> None:
    if outcome.summary is None:
        print(outcome.folder)
        return
    for warning in outcome.summary.get("warnings", []):
        print(f"warning: {warning}")
    print(outcome.summary["answer"])
    for name, other in outcome.summary.get("elsewhere", {}).items():
        print(f"On {name}: {other['answer']}")
    print(outcome.report)


@app.command(
    epilog=examples(
        "preceptor check MoNuSeg",
        "preceptor check MoNuSeg --label background=0 --label nucleus=255",
        "preceptor check textfreekd/monuseg --set data.root=MoNuSeg",
    )
)
def check(
    source: Source,
    layout: Layout = "auto",
    labels: Labels = None,
    groups: Annotated[str, typer.Option(help="Patients: auto, required or waived.")] = "auto",
    write_manifest: Annotated[Path | None, typer.Option(help="Write the cases as an editable table.")] = None,
    findings: Annotated[Path | None, typer.Option("--json", help="Write every finding and fact as JSON.")] = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Tell what is wrong with a data set, or a recipe, before any compute. Exit code 2 on errors."""
    from preceptor.data import case as manifest
    from preceptor.data.check import check as check_cases
    from preceptor.data.check import render_check
    from preceptor.data.layouts import read_cases
    from preceptor.data.splits import assign_splits
    from preceptor.folder_recipes import attributes_of, check_networks, data_of
    from preceptor.preparing import with_attributes
    from preceptor.progress import callback, make_progress
    from preceptor.storage import write_json

    data, reports = data_of(source, layout=layout, labels=labels or (), groups=groups, changes=changes or ())
    attributes = attributes_of(source, changes or ())
    found = read_cases(data)
    if attributes is not None:
        found = with_attributes(found, attributes)
    if Path(source).is_dir() and all(case.report is None for case in found.cases):
        reports = None
    counter = callback(make_progress(progress_kind(quiet)), "check")
    result = check_cases(found, data, reports, progress=counter, attributes=attributes)
    print(render_check(result))
    if write_manifest:
        manifest.write_manifest(write_manifest, assign_splits(found.cases, data.split), found.root)
    if findings:
        write_json(findings, result.to_dict())
    check_networks(source, changes or ())
    if result.errors:
        raise typer.Exit(2)


@app.command(
    epilog=examples(
        "preceptor embed MoNuSeg --encoder hashed -o reports.safetensors",
        "preceptor embed my.yaml -o reports.safetensors",
        "preceptor embed QaTa --encoder models/cxr-bert -o reports.safetensors",
    )
)
def embed(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Feature file; wordings it holds already are kept.")],
    encoder: Annotated[str | None, typer.Option(help="hashed, a Hugging Face id, or a local folder.")] = None,
    revision: Annotated[str | None, typer.Option(help="Pinned revision of a Hugging Face encoder.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens kept of each report.")] = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Turn reports into token features, once, so that training needs no language model."""
    from preceptor.folder_recipes import embedding_recipe
    from preceptor.preparing import embed_reports
    from preceptor.progress import make_progress

    given = {"encoder": encoder, "revision": revision, "length": length}
    options = [f"reports.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    recipe = embedding_recipe(source, [*options, *(changes or [])])
    features = embed_reports(recipe, out, make_progress(progress_kind(quiet)))
    print(f"{out}: {len(features)} wordings, {features.length} tokens of width {features.width}")


@app.command(
    epilog=examples(
        "preceptor evaluate runs/demo --set evaluate.tolerance=3",
        "preceptor evaluate package films --label background=0 --label infection=255",
    )
)
def evaluate(
    target: Annotated[Path, typer.Argument(help="A run folder (all arms are judged again) or a package.")],
    data: Annotated[Path | None, typer.Argument(help="For a package: a labelled data folder.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="For a package: where the tables go.")] = None,
    layout: Layout = "auto",
    labels: Labels = None,
    split: Annotated[
        str, typer.Option(help="For a package: all, train, val or test.", autocompletion=one_of(*SPLITS))
    ] = "all",
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Judge a finished run again, or a package on other data."""
    if (target / "recipe.yaml").is_file() and data is None:
        if out or labels or layout != "auto" or split != "all":
            raise UserError(
                "a run is judged as its recipe says; --out, --layout, --label and --split are for packages",
                where=target,
                remedy="change the recipe with --set, or name a package and a data folder",
            )
        _run(str(target / "recipe.yaml"), target, ("evaluate",), quiet, changes)
        return
    if not target.exists():
        raise StorageError("there is no such run folder or package", where=target, remedy="check the path")
    if data is None:
        raise UserError(
            "a package is judged on a data folder, which is missing",
            where=target,
            remedy="preceptor evaluate PACKAGE DATA --label background=0 --label NAME=VALUE",
        )
    from preceptor.data.layouts import read_cases
    from preceptor.delivery.package import load_package
    from preceptor.folder_recipes import data_of
    from preceptor.judging import evaluate_package
    from preceptor.learning.privilege import PRIVILEGES
    from preceptor.progress import callback, make_progress

    if split not in SPLITS:
        raise RecipeError("no such split", where=f"--split {split}", expected=", ".join(SPLITS))
    section, _ = data_of(str(data), layout=layout, labels=labels or (), changes=changes or ())
    cases = [case for case in read_cases(section).cases if case.mask and split in ("all", case.split)]
    if not cases:
        raise DataError("there is no labelled case to judge", where=data, found=f"none with a mask in split {split}")
    counter = callback(make_progress(progress_kind(quiet)), "judge")
    place = out or Path("runs") / f"evaluate-{data.name}"
    package = load_package(target)
    figures = evaluate_package(package, section, cases, place, counter)
    if caveat := PRIVILEGES[package.needs].caveat:
        print(f"warning: the network is {caveat}")
    for name, (mean, low, high) in figures.items():
        print(f"{name:22s} {mean:8.4f}   [{low:.4f}, {high:.4f}]")


@app.command(
    epilog=examples(
        "preceptor predict runs/demo/package films/ -o masks",
        "preceptor predict runs/demo/package a.png b.nii.gz -o masks --overlays",
    )
)
def predict(
    package: Annotated[Path, typer.Argument(help="The folder of a package.")],
    images: Annotated[list[Path], typer.Argument(help="Files or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the masks go.")],
    overlays: Annotated[bool, typer.Option(help="Also write pictures with the outline.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Also write class probabilities.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace existing masks.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write a mask for every image, in its own format and geometry. Exit code 1 if some files failed."""
    from preceptor.delivery.package import load_package
    from preceptor.delivery.predict import predict_files
    from preceptor.progress import callback, make_progress

    result = predict_files(
        load_package(package),
        images,
        out,
        overlays=overlays,
        probabilities=probabilities,
        overwrite=overwrite,
        device=device,
        progress=callback(make_progress(progress_kind(quiet)), "predict"),
    )
    print(f"{len(result.done)} written to {out}" + (f", {len(result.kept)} kept" if result.kept else ""))
    if result.failed:
        print(f"{len(result.failed)} failed:", file=sys.stderr)
        for path, why in result.failed:
            print(f"  {path}: {why}", file=sys.stderr)
        raise typer.Exit(1)


app.command(
    epilog=examples(
        "preceptor compare my.matrix.yaml --jobs 2",
        "preceptor compare zoo/acdc --set recipe.data.root=ACDC --out runs/acdc",
        "preceptor compare runs/first runs/second --out runs/both",
    )
)(compare)

app.command(
    "pretrain-diffusion",
    epilog=examples(
        "preceptor pretrain-diffusion Tiles --shape tiny --set scale=256",
        "preceptor pretrain-diffusion textdiff/monuseg --set data.root=MoNuSeg",
    ),
)(pretrain_diffusion)


@app.command(epilog=examples("preceptor report runs/demo"))
def report(folder: Annotated[Path, typer.Argument(help="A judged run folder.")]) -> None:
    """Write report.html of a finished run again."""
    from preceptor.evaluation.report import write_report

    if not (folder / "summary.json").is_file():
        raise StorageError(
            "this is no judged run folder",
            where=folder,
            found="no summary.json" if folder.is_dir() else "no such folder",
            remedy="judge it with `preceptor run` or `preceptor evaluate`, or check the path",
        )
    print(write_report(folder))


app.command(epilog=examples("preceptor convert ACDC --to nnunet --out Dataset027_ACDC --name ACDC"))(convert)


@app.command(
    "import-weights",
    epilog=examples(
        "preceptor import-weights medseg.ckpt --architecture languide -o languide",
        "preceptor import-weights a --architecture textdiff --option diffusion=b -o c",
        "preceptor import-weights pytorch_model.bin --architecture text-encoder -o bert",
        "preceptor import-weights unet.pt --architecture diffusion -o unet.safetensors",
    ),
)
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of an original system (.ckpt, .pth, .safetensors).")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The package to write; of what is none, the file or folder.")
    ],
    architecture: Architecture,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the network: --option diffusion=FILE"),
    ] = None,
) -> None:
    """Turn a published checkpoint into a package. The pickle is read in a separate process, tensors only."""
    from preceptor.delivery.imports import import_package
    from preceptor.recipe import apply_changes

    print(import_package(checkpoint, out, architecture, apply_changes({}, options or ())))


@app.command("list", epilog=examples("preceptor list", "preceptor list distillers", "preceptor list choices"))
def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="segmentors, distillers, layouts, choices, ... ; all if left out.")
    ] = None,
) -> None:
    """Name everything that a recipe may name, with its options and their defaults."""
    from preceptor.catalogue import catalogue, render

    sections = catalogue()
    if kind is not None and kind not in sections:
        raise RecipeError("no such list", where=kind, expected=", ".join(sections))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(render({kind: sections[kind]} if kind else sections, width))


@app.command(epilog=examples("preceptor show demo", "preceptor show my.yaml --set training.lr=1e-3"))
def show(recipe: RecipeName, changes: Changes = None) -> None:
    """Print a recipe as it is run: everything inherited and every default filled in."""
    from preceptor.recipe import read_recipe

    print(read_recipe(recipe, changes or ()).to_yaml(), end="")


def _version(asked: bool) -> None:
    if asked:
        from preceptor import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing happens before a verb."""


def main() -> None:
    """Run the command line; errors of the user are printed without a traceback."""
    # waiting OpenMP threads spin for milliseconds; beside other work that makes steps many times slower
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted:
        print("stopped and saved; the same command goes on from here", file=sys.stderr)
        sys.exit(143)


if __name__ == "__main__":
    main()
