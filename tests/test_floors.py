"""The house keeps its floors: who imports whom, what is imported when, and where the dangerous calls are.

All of it is read from the source, so that nothing needs to run.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "preceptor"
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

FLOORS: list[set[str]] = [
    {
        "errors.py",
        "plainyaml.py",
        "storage.py",
        "progress.py",
        "environment.py",
        "extras.py",
        "plugins.py",
        "__init__.py",
    },
    {"recipe.py", "recipe_data.py", "recipe_diffusion.py", "recipe_evaluate.py", "recipe_faults.py"},
    {"evaluation/metrics.py", "evaluation/surface.py", "evaluation/statistics.py", "segmentors/*"},
    {"distillers/*"},
    {"data/*", "text/*", "weights.py", "originals/*", "unpickle.py"},
    {"learning/*", "delivery/*", "evaluation/*"},
    {
        "caching.py",
        "evaluation_sets.py",
        "judging.py",
        "packaging.py",
        "preparing.py",
        "resuming.py",
        "summarising.py",
        "folder_recipes.py",
    },
    {"pretraining.py", "pipeline.py", "matrix.py", "launching.py", "launchers.py", "catalogue.py"},
    {"compare.py"},
    {"cli.py", "cli_options.py", "cli_compare.py", "cli_pretrain.py"},
]
"""From the ground up; an exact name goes before its folder."""

HEAVY = {
    *("monai", "lightning", "transformers", "pandas", "matplotlib", "scipy", "typer", "rich"),
    *("nibabel", "pydicom", "h5py", "submitit", "diffusers"),
}
LIGHT = (
    "cli.py",
    "errors.py",
    "storage.py",
    "recipe.py",
    "recipe_data.py",
    "recipe_evaluate.py",
    "recipe_faults.py",
    "plainyaml.py",
    "progress.py",
)
"""What `preceptor --help` imports: it must not wait for torch."""

UNPICKLERS = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("numpy", "load")}


def floor(name: str) -> int:
    exact = [level for level, names in enumerate(FLOORS) if name in names]
    folder = [level for level, names in enumerate(FLOORS) if f"{name.split('/')[0]}/*" in names and "/" in name]
    found = exact or folder
    assert found, f"{name} stands on no floor: add it to FLOORS in {Path(__file__).name}"
    return found[0]


def file_of(module: str) -> str | None:
    """preceptor.data.case -> data/case.py; None for what is no module of ours."""
    parts = module.split(".")
    if parts[0] != "preceptor":
        return None
    path = "/".join(parts[1:])
    return next((name for name in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if name in FILES), None)


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed when the module is imported and not only seen by the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_import(node)


def modules(nodes: Iterator[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            # `from preceptor.data import readers` imports a module, `from preceptor.errors import X` a name of one.
            found |= {f"{base}.{alias.name}" if file_of(f"{base}.{alias.name}") else base for alias in node.names}
    return found


def ours(name: str, everything: bool = True) -> set[str]:
    nodes = ast.walk(TREES[name]) if everything else at_import(TREES[name])
    return {file for module in modules(nodes) if (file := file_of(module)) is not None and file != name}


@pytest.mark.parametrize("name", FILES)
def test_file_imports_only_from_its_own_floor_or_lower(name):
    wrong = [other for other in ours(name) if other != "__init__.py" and floor(other) > floor(name)]
    assert not wrong, f"{name} (floor {floor(name)}) imports {wrong}"


def test_imports_run_in_no_circle():
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in sorted(ours(name)):
                visit(other, (*way, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


@pytest.mark.parametrize("name", FILES)
def test_nothing_heavy_is_imported_with_the_module(name):
    top = {module.split(".")[0] for module in modules(at_import(TREES[name]))}
    allowed = {"typer", "rich"} if name.startswith("cli") else set()
    assert not top & HEAVY - allowed, f"{name}: import these inside the functions that need them"


@pytest.mark.parametrize("name", [name for name in LIGHT if name in FILES])
def test_help_does_not_wait_for_torch(name):
    """Neither the module nor anything of ours that it imports at its top brings torch in."""
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        top = {module.split(".")[0] for module in modules(at_import(TREES[current]))}
        assert not top & {"torch", "numpy", "safetensors"}, f"{name} brings {current}, which imports {top}"
        waiting += ours(current, everything=False)


def calls(name: str) -> Iterator[tuple[str, str, int]]:
    """(object, method, line) of every call a.b(...), and ("", name, line) of every call name(...)."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                yield {"np": "numpy"}.get(owner, owner), node.func.attr, node.lineno
            elif isinstance(node.func, ast.Name):
                yield "", node.func.id, node.lineno


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_can_execute_is_loaded(name):
    """torch.load, pickle and their like exist only in the converter of published checkpoints, a process of its own."""
    if name == "unpickle.py":
        return
    top = {module.split(".")[0] for module in modules(ast.walk(TREES[name]))}
    assert not top & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = [call for call in calls(name) if call[:2] in UNPICKLERS - {("numpy", "load")}]
    found += [call for call in calls(name) if call[1] in ("eval", "exec") and call[0] == ""]
    assert not found
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code", "weights_only"):
            assert ast.unparse(node.value) == {"weights_only": "True"}.get(node.arg, "False")


@pytest.mark.parametrize("name", FILES)
def test_archives_are_unpacked_in_storage_alone(name):
    found = [call for call in calls(name) if call[1] in ("extractall", "extract", "unpack_archive")]
    assert not found, f"{name}: unpack through storage.unpacked, which bounds what it writes"
    top = {module.split(".")[0] for module in modules(ast.walk(TREES[name]))}
    assert name == "storage.py" or not top & {"tarfile"}


@pytest.mark.parametrize("name", FILES)
def test_no_file_outgrows_one_idea(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 400


def test_the_reader_of_imports_sees_what_it_should():
    tree = ast.parse(
        "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import hidden\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\nclass C:\n    import inner\n    def f(self):\n"
        "        import later\n"
    )
    assert modules(at_import(tree)) == {"a.b", "typing", "tried", "inner"}
    assert {"later", "hidden"} < modules(ast.walk(tree))
    assert file_of("preceptor.errors") == "errors.py"
    assert file_of("preceptor.errors.UserError") is None
