"""The command line: help that shows how, errors that teach, exit codes that programs can rely on."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from typer.testing import CliRunner

from preceptor import __version__, cli
from preceptor.catalogue import catalogue
from preceptor.compare import Compared
from preceptor.data.transforms import Preprocessing
from preceptor.delivery.package import save_package
from preceptor.errors import Interrupted
from preceptor.launching import Ended
from preceptor.recipe import read_recipe, shipped_recipes, validate_recipe
from preceptor.segmentors import zoo
from preceptor.storage import read_json
from preceptor.text.features import ReportFeatures

from .evaluation.comparisons import fabricate_result

VERBS = (
    *("demo", "run", "check", "embed", "evaluate", "predict", "compare"),
    *("pretrain-diffusion", "report", "convert", "import-weights", "list", "show"),
)


def invoke(*arguments):
    """What a command prints on standard output; any error is raised."""
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command as the shell does: command(*arguments) -> (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["preceptor", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def recipe_file(small_recipe, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(validate_recipe(small_recipe).to_yaml(), encoding="utf-8")
    return path


@pytest.fixture
def package(tmp_path):
    """An untrained student's package, for pictures of `small_data`."""
    torch.manual_seed(0)
    options = {"widths": [4, 4, 4, 8], "depths": [1, 1, 1, 1]}
    facts = {"name": "unguided", "size": "tiny", "options": options, "in_channels": 1, "classes": 2, "condition": None}
    network = zoo.build("unguided", in_channels=1, classes=2, size="tiny", **options)
    preprocessing = Preprocessing((32, 32), 1, "bicubic", True, "zscore")
    labels = {"background": 0, "square": 255}
    return save_package(
        tmp_path / "student", network, segmentor=facts, preprocessing=preprocessing, labels=labels, card={}
    )


# Help


def examples(verb):
    epilog = typer.main.get_command(cli.app).commands[verb].epilog
    return re.findall(r"^ +(preceptor .*)$", epilog, re.MULTILINE)


def test_the_verbs_are_those_that_are_documented():
    assert tuple(typer.main.get_command(cli.app).commands) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_in_its_help(verb):
    text = " ".join(invoke(verb, "--help").split())
    assert "Examples:" in text
    assert examples(verb)
    for example in examples(verb):
        assert " ".join(example.split()) in text
        assert len(example) <= 78, "it would be wrapped in a terminal"


@pytest.mark.parametrize("example", [line for verb in VERBS for line in examples(verb)])
def test_every_example_is_a_command_that_can_be_given(example):
    _, verb, *arguments = shlex.split(example)
    parsed = typer.main.get_command(cli.app).commands[verb].make_context(verb, arguments).params
    named = [parsed["recipe"]] if "recipe" in parsed else [parsed["source"]] if "source" in parsed else []
    for name in named:
        assert name in shipped_recipes() or name == "my.yaml" or name[0].isupper()


def test_help_waits_for_no_heavy_library():
    program = (
        "import sys; from preceptor import cli; sys.argv = ['preceptor', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit as ended: code = ended.code\n"
        "print(code, sorted({'torch', 'numpy', 'pandas', 'pydantic', 'scipy', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Commands" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_no_verb_at_all_gives_the_help(command):
    code, out, err = command()
    assert code == 2
    assert "import-weights" in out + err


def test_version():
    assert invoke("--version").strip() == __version__


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo", "--set", "training.epocs=3"], "training.epocs: unknown key; did you mean epochs?"),
        (["run", "demo", "--set", "training.lr=fast"], "training.lr: Input should be a valid number; found 'fast'"),
        (["run", "demo", "--set", "training.lr"], "a change is not of the form key=value"),
        (["run", "demo", "--only", "judge"], "no such stage"),
        (["run", "textfreekd/qta"], "did you mean textfreekd/qata"),
        (["run", "textfreekd/qata"], "data.root is empty"),
        (["run", "textfreekd/qata", "--set", "data.root=absent"], "the data folder does not exist"),
        (["run", "textfreekd/published", "--set", "data.root=absent"], "data.labels is missing"),
        (["check", "absent"], "neither a data folder, nor a recipe file, nor a shipped recipe"),
        (["check", ".", "--label", "lesion"], "a label is not of the form name=value"),
        (["check", ".", "--layout", "zip"], "data.layout: Input should be 'auto', 'lvit'"),
        (["check", "."], "no known layout"),
        (["embed", "absent", "-o", "x.safetensors"], "neither a data folder"),
        (["evaluate", "absent"], "there is no such run folder or package"),
        (["evaluate", "."], "a package is judged on a data folder, which is missing"),
        (["evaluate", ".", "."], "no known layout"),
        (["evaluate", ".", ".", "--split", "tset"], "no such split"),
        (["predict", "absent", "x.png", "-o", "masks"], "this is no package"),
        (["compare", "absent"], "there is no such matrix file"),
        (["compare", ".", "absent", "-o", "x"], "either one matrix or several run folders"),
        (["compare", "."], "finished runs are compared into a folder, which is missing"),
        (["compare", ".", "-o", "x"], "this is no judged run"),
        (["compare", ".", "-o", "x", "--set", "seeds=[1]"], "nothing is run to compare finished runs"),
        (["compare", "zoo/acdc", "--intersect"], "the runs of a matrix are judged on the same cases"),
        (["compare", "zoo/acdc", "--launcher", "ray"], "no such launcher"),
        (["compare", "zoo/acdc", "--cluster", "a=1"], "--cluster is for --launcher slurm"),
        (["compare", "zoo/acdc", "--launcher", "slurm", "--devices", "0"], "a cluster deals its devices itself"),
        (["compare", "zoo/acdc", "--launcher", "slurm", "--cluster", "a"], "not of the form key=value"),
        (["compare", "zoo/acdc", "--set", "studnets.a=1"], "studnets: unknown key; did you mean students?"),
        (["compare", "zoo/acdc", "--set", "recipe.training.epocs=3"], "training.epocs: unknown key"),
        (["compare", "zoo/acdc", "--set", "recipe.data.root=absent"], "the data folder does not exist"),
        (["convert", "absent", "-o", "x"], "neither a data folder"),
        (["convert", ".", "-o", "x", "--to", "lvit"], "no such layout to write"),
        (["report", "absent"], "this is no judged run folder"),
        (["import-weights", "absent", "-o", "x", "--architecture", "resnet"], "textfreekd-student"),
        (["import-weights", "absent", "-o", "x", "--architecture", "languide"], "the checkpoint does not exist"),
        (["list", "segmentor"], "no such list"),
        (["show", "absent.yaml"], "no such recipe file"),
    ],
)
def test_a_users_error_is_told_without_traceback_and_ends_with_2(arguments, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments, *(["-q"] if arguments[0] == "run" else []))
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "demo", "--epochs", "3"], ["show", "a", "b"]])
def test_a_wrong_use_ends_with_2_and_points_to_the_help(arguments, command):
    code, out, err = command(*arguments)
    assert code == 2
    assert "-h" in err
    assert "Traceback" not in out + err


def test_a_defect_of_the_library_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("preceptor.pipeline.run", broken)
    monkeypatch.setattr(sys, "argv", ["preceptor", "run", "demo"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(("raised", "expected"), [(KeyboardInterrupt(), 130), (Interrupted("control"), 143)])
def test_a_stopped_run_says_how_to_go_on(raised, expected, command, monkeypatch):
    def stopped(*_, **__):
        raise raised

    monkeypatch.setattr("preceptor.pipeline.run", stopped)
    code, _, err = command("run", "demo")
    assert code == expected
    assert "the same command goes on" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("raised", "expected"), [(KeyboardInterrupt(), 130), (Interrupted("compare"), 143)])
def test_a_stopped_comparison_says_how_to_go_on(raised, expected, command, monkeypatch):
    def stopped(*_, **__):
        raise raised

    monkeypatch.setattr("preceptor.compare.compare_matrix", stopped)
    code, _, err = command("compare", "zoo/acdc")
    assert code == expected
    assert "the same command goes on" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("unfinished", "expected"), [({}, 0), ({"a--b--kd": Ended("failed", "no mask")}, 1)])
def test_a_comparison_prints_its_table_and_what_did_not_end(unfinished, expected, command, monkeypatch, tmp_path):
    listed = [
        {"run": name, "state": end.state, "reason": end.reason, "log": "x.txt"} for name, end in unfinished.items()
    ]
    result = fabricate_result(unfinished=listed)
    given = {}

    def compared(matrix, folder, launcher, progress):
        given.update(folder=folder, slots=launcher.slots, devices=launcher.devices, seeds=matrix.seeds)
        return Compared(tmp_path, result, tmp_path / "comparison.html", unfinished)

    monkeypatch.setattr("preceptor.compare.compare_matrix", compared)
    code, out, err = command("compare", "zoo/acdc", "--devices", "0,2", "--set", "seeds=[5]", "-o", tmp_path)
    assert code == expected
    assert given == {"folder": tmp_path, "slots": 2, "devices": ("0", "2"), "seeds": [5]}
    assert out.startswith("rank ")
    assert out.splitlines()[-2:] == [result["answer"], str(tmp_path / "comparison.html")]
    if unfinished:
        assert err.splitlines() == [
            "1 run did not end; the same command tries again:",
            "  a--b--kd: failed no mask",
            f"    see {tmp_path / 'x.txt'}",
        ]


def test_a_matrix_goes_to_a_folder_of_its_name_and_one_run_at_a_time(command, monkeypatch):
    given = {}

    def compared(matrix, folder, launcher, progress):
        given.update(folder=folder, slots=launcher.slots)
        raise KeyboardInterrupt

    monkeypatch.setattr("preceptor.compare.compare_matrix", compared)
    command("compare", "zoo/acdc")
    assert given == {"folder": Path("runs/acdc"), "slots": 1}
    command("compare", "zoo/acdc", "--jobs", "3")
    assert given["slots"] == 3


# Names and recipes


def test_list_names_everything_that_a_recipe_may_name():
    text = invoke("list")
    for title, entries in catalogue().items():
        assert f"\n{title}\n" in f"\n{text}"
        for entry in entries:
            assert f"  {entry.name} " in text


def test_list_of_one_kind_names_that_kind_alone():
    text = invoke("list", "distillers")
    assert "token_l1" in text
    assert "textfreekd/qata" not in text


@pytest.mark.parametrize("name", ["demo", "textfreekd/qata"])
def test_what_show_prints_reads_back_equal(name, tmp_path):
    changes = ["training.lr=1e-3", "seeds=[3, 4]", "distill.0.weight=2"]
    options = [part for change in changes for part in ("--set", change)]
    (tmp_path / "shown.yaml").write_text(invoke("show", name, *options), encoding="utf-8")
    recipe = read_recipe(tmp_path / "shown.yaml")
    assert recipe == read_recipe(name, changes)
    assert (recipe.training.lr, recipe.seeds, recipe.distill[0].weight) == (1e-3, [3, 4], 2.0)


def test_set_changes_win_in_their_order(tmp_path):
    (tmp_path / "shown.yaml").write_text(invoke("show", "demo", "--set", "name=a", "--set", "name=b"), encoding="utf-8")
    assert read_recipe(tmp_path / "shown.yaml").name == "b"


def test_the_demo_keeps_its_data_beside_its_run(command, monkeypatch, tmp_path):
    given = {}

    def run(recipe, out, **options):
        given.update(options, recipe=read_recipe(recipe, options["changes"]), out=out)
        raise KeyboardInterrupt

    monkeypatch.setattr("preceptor.pipeline.run", run)
    command("demo", "--out", tmp_path / "my: runs" / "first", "--set", "training.epochs=2")
    assert given["recipe"].data.root == str(tmp_path / "my: runs" / "phantoms")
    assert given["recipe"].training.epochs == 2
    assert given["out"] == tmp_path / "my: runs" / "first"


# Data


def test_check_of_a_sound_folder_ends_with_0_and_writes_what_is_asked_for(small_data, tmp_path, command):
    labels = ["--label", "background=0", "--label", "square=255"]
    findings, manifest = tmp_path / "findings.json", tmp_path / "cases.csv"
    code, out, _ = command("check", small_data, *labels, "-q", "--json", findings, "--write-manifest", manifest)
    assert code == 0
    assert "16 cases" in out
    assert read_json(findings)["facts"]["cases"] == 16
    with open(manifest, encoding="utf-8") as file:
        assert [row["split"] for row in csv.DictReader(file)].count("test") == 6
    assert command("check", manifest.rename(small_data / "cases.csv").parent, *labels, "-q")[0] == 0


def test_check_proposes_labels_and_ends_with_2_where_they_do_not_hold(small_data, command):
    code, out, _ = command("check", small_data, "-q")
    assert code == 0
    assert "labels: {background: 0, foreground: 255}" in out
    code, out, err = command("check", small_data, "-q", "--label", "background=0", "--label", "square=7")
    assert (code, err) == (2, "")
    assert "labels: {background: 0, square: 255}" in out


def test_check_of_a_recipe_takes_its_labels(recipe_file, command):
    assert command("check", recipe_file, "-q")[0] == 0
    assert command("check", recipe_file, "-q", "--set", "data.labels={background: 0, square: 7}")[0] == 2


def test_changes_count_for_a_folder_too(small_data, command):
    code, out, _ = command("check", small_data, "-q", "--set", "data.mask_rule=threshold")
    assert code == 0, out


def trace(folder):
    return (folder / "steps.csv").read_text(encoding="utf-8")


def test_features_made_beforehand_replace_the_encoder_and_change_nothing(recipe_file, small_data, tmp_path):
    """`embed` on the recipe or on its folder, then a run that has no encoder: the teacher learns the very same."""
    whole, ready = tmp_path / "whole", tmp_path / "ready"
    invoke("run", recipe_file, "--out", whole, "--only", "teacher", "-q")
    by_recipe, by_folder = tmp_path / "recipe.safetensors", tmp_path / "folder.safetensors"
    assert "12 tokens of width 16" in invoke("embed", recipe_file, "-o", by_recipe, "-q")
    shape = ["--length", "12", "--set", "reports.width=16"]
    invoke("embed", small_data, "-o", by_folder, *shape, "-q")
    for line in (small_data / "reports.csv").read_text().splitlines()[1:]:
        text = line.split(",")[1]
        expected = ReportFeatures(whole / "reports.safetensors")[text]
        for file in (by_recipe, by_folder):
            assert torch.equal(ReportFeatures(file)[text], expected)
    options = ["--set", f"reports.features={by_folder}", "--set", "reports.encoder=nobody/has-this"]
    invoke("run", recipe_file, "--out", ready, "--only", "teacher", "-q", *options)
    assert trace(ready / "teacher" / "seed-0") == trace(whole / "teacher" / "seed-0")
    assert not (ready / "reports.safetensors").exists()


def test_embedding_again_keeps_what_is_there_and_refuses_another_encoder(small_data, tmp_path, command):
    out = tmp_path / "features.safetensors"
    assert command("embed", small_data, "-o", out, "-q")[0] == 0
    before = out.read_bytes()
    assert command("embed", small_data, "-o", out, "-q")[0] == 0
    assert out.read_bytes() == before
    code, _, err = command("embed", small_data, "-o", out, "-q", "--length", "9")
    assert code == 2
    assert "features of another encoder" in err


def test_a_folder_without_reports_has_nothing_to_embed(small_data, tmp_path, command):
    (small_data / "reports.csv").unlink()
    code, _, err = command("embed", small_data, "-o", tmp_path / "x.safetensors", "-q")
    assert code == 2
    assert "no case has a report" in err


# Runs and packages


def test_a_run_from_files_to_report_and_what_can_be_done_with_it(recipe_file, small_data, tmp_path, command):
    out = tmp_path / "run"
    code, told, err = command("run", recipe_file, "--out", out, "-q")
    assert (code, err) == (0, "")
    assert told.splitlines()[-1] == str(out / "report.html")
    assert read_json(out / "summary.json")["answer"] in told
    begun = trace(out / "student" / "seed-0")

    code, told, _ = command("evaluate", out, "-q", "--set", "evaluate.tolerance=5.0")
    assert code == 0
    assert read_json(out / "summary.json")["tolerance"] == 5.0
    assert trace(out / "student" / "seed-0") == begun

    (out / "report.html").unlink()
    assert command("report", out)[:2] == (0, f"{out / 'report.html'}\n")
    assert (out / "report.html").stat().st_size > 0

    assert command("predict", out / "package", small_data / "images", "-o", tmp_path / "masks", "-q")[0] == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 16

    code, _, err = command("evaluate", out, "-q", "--split", "test")
    assert code == 2
    assert "are for packages" in err
    code, _, err = command("run", recipe_file, "--out", out, "-q", "--set", "training.lr=0.5")
    assert code == 2
    assert "training.lr: 0.001 -> 0.5" in err


def test_a_stage_alone_prints_where_it_left_its_files(recipe_file, tmp_path, command):
    code, told, _ = command("run", recipe_file, "-o", tmp_path / "run", "--only", "control", "-q")
    assert (code, told) == (0, f"{tmp_path / 'run'}\n")
    assert (tmp_path / "run" / "control" / "seed-0" / "package").is_dir()
    assert not (tmp_path / "run" / "teacher").exists()
    code, _, err = command("run", recipe_file, "-o", tmp_path / "run", "--only", "evaluate", "-q")
    assert code == 2
    assert "--only teacher" in err


def test_a_package_is_judged_on_another_folder(package, small_data, tmp_path, command):
    labels = ["--label", "background=0", "--label", "square=255"]
    code, told, _ = command("evaluate", package, small_data, *labels, "-o", tmp_path / "all", "-q")
    assert code == 0
    figures = {line.split()[0]: float(line.split()[1]) for line in told.splitlines()}
    with open(tmp_path / "all" / "cases.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((tmp_path / "all" / "predictions").iterdir())) == 16
    assert figures["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-4)
    command("evaluate", package, small_data, *labels, "--split", "test", "-o", tmp_path / "test", "-q")
    assert len(list((tmp_path / "test" / "predictions").iterdir())) == 6


def test_a_package_is_judged_on_its_own_classes_alone(package, small_data, tmp_path, command):
    out = ["-o", tmp_path / "out", "-q"]
    code, _, err = command("evaluate", package, small_data, "--label", "background=0", "--label", "lesion=255", *out)
    assert code == 2
    assert "--label square=255" in err
    (small_data / "splits.csv").unlink()
    labels = ["--label", "background=0", "--label", "square=255"]
    code, _, err = command("evaluate", package, small_data, *labels, "--split", "val", *out)
    assert code == 2
    assert "no labelled case to judge" in err


def test_one_bad_file_is_listed_at_the_end_and_gives_1(package, small_data, tmp_path, command):
    (small_data / "images" / "c03.png").write_bytes(b"not a picture")
    code, told, err = command("predict", package, small_data / "images", "-o", tmp_path / "masks", "-q")
    assert code == 1
    assert told == f"15 written to {tmp_path / 'masks'}\n"
    assert "1 failed:" in err
    assert "c03.png" in err
    assert "Traceback" not in err
    assert {int(value) for file in (tmp_path / "masks").glob("*.png") for value in np.unique(read(file))} <= {0, 255}


def read(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


# Shells


def complete(words, shell="bash"):
    environment = {**os.environ, "_PRECEPTOR_COMPLETE": f"complete_{shell}", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-c", "from preceptor.cli import app; app(prog_name='preceptor')"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("preceptor re", ["report"]),
        ("preceptor run textfreekd/q", ["textfreekd/qata"]),
        ("preceptor run demo --only ", ["teacher", "control", "student", "evaluate"]),
        ("preceptor import-weights a --architecture lan", ["languide"]),
    ],
)
def test_a_shell_completes_verbs_recipes_and_choices(words, expected):
    assert complete(words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_is_shown(shell, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    text = invoke("--show-completion", shell)
    assert "_PRECEPTOR_COMPLETE" in text
    assert f"complete_{shell}" in text
