"""Recipes are strict, their errors teach, and they survive the way through YAML."""

from pathlib import Path

import pytest

from preceptor.errors import RecipeError
from preceptor.recipe import Recipe, merge, read_recipe, read_yaml, shipped_recipes, validate_recipe

SMALLEST = {"name": "small", "student": {"name": "unguided"}}
TEACHER = {"segmentor": {"name": "guided"}, "privilege": "report"}


def message(content: dict) -> str:
    with pytest.raises(RecipeError) as caught:
        validate_recipe({**SMALLEST, **content})
    return str(caught.value)


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_smallest_recipe_takes_every_default():
    recipe = validate_recipe(SMALLEST)
    assert (recipe.seeds, recipe.training.epochs, recipe.data.size) == ([0], 100, (224, 224))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"datta": {}}, "datta: unknown key; did you mean data?"),
        ({"data": {"imagesize": 64}}, "data.imagesize: unknown key; did you mean image_size?"),
        ({"data": {"split": {"rul": "tail"}}}, "data.split.rul: unknown key; did you mean rule?"),
        ({"data": {"phantoms": {"case": 4}}}, "data.phantoms.case: unknown key; did you mean cases?"),
        ({"teacher": {"segmentor": {"nam": "guided"}}}, "teacher.segmentor.nam: unknown key; did you mean name?"),
        ({"teacher": {**TEACHER, "training": {"epocs": 3}}}, "teacher.training.epocs: unknown key; did you mean epoch"),
        ({"teacher": TEACHER, "distill": [{"nme": "l1"}]}, "distill.0.nme: unknown key; did you mean name?"),
        ({"evaluate": {"qqqq": 1}}, "evaluate.qqqq: unknown key; valid keys: splits, tolerance"),
    ],
)
def test_misspelt_key_is_answered_with_the_nearest_valid_one(content, line):
    assert line in message(content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"training": {"lr": "yes"}}, "training.lr: Input should be a valid number; found 'yes'"),
        ({"training": {"epochs": True}}, "training.epochs: Input should be a valid integer; found True"),
        ({"training": {"epochs": "10"}}, "training.epochs: Input should be a valid integer; found '10'"),
        ({"training": {"epochs": 1.5}}, "training.epochs: Input should be a valid integer"),
        ({"training": {"epochs": 0}}, "training.epochs: Input should be greater than 0; found 0"),
        ({"training": {"lr": float("nan")}}, "training.lr:"),
        ({"training": {"lr": float("inf")}}, "training.lr: Input should be a finite number"),
        ({"training": {"channels_last": "yes"}}, "training.channels_last: Input should be a valid boolean"),
        ({"teacher": {**TEACHER, "training": {"lr": "fast"}}}, "teacher.training.lr: Input should be a valid number"),
        ({"data": {"image_size": "big"}}, "data.image_size: Input should be a valid integer or Input should be a"),
        ({"data": {"image_size": [1, 2, 3]}}, "image_size is one number or [height, width]"),
        ({"data": {"labels": {"lesion": 1.5}}}, "data.labels.lesion: "),
        ({"data": {"labels": {False: 0}}}, "data.labels: the key False is no text; put it in quotes"),
        ({"data": {"normalize": "zscor"}}, "data.normalize: Input should be 'zscore', 'unit', 'symmetric', 'none'"),
        ({"data": {"normalize": "zscor"}}, "or 'volume_percentile'; found 'zscor'"),
        ({"data": {"clip": [275, -125]}}, "clip is [low, high] with low below high"),
        ({"augment": {"zoom": [0.1, 1]}}, "augment.zoom: List should have at least 3 items"),
        ({"seeds": []}, "seeds: List should have at least 1 item"),
        ({"seeds": [1, 1]}, "seeds: each seed once"),
        ({"student": {"size": "tiny"}}, "student.name: required, but missing"),
        ({"distill": [{"name": "l1"}]}, "a distiller needs a teacher"),
        ({"name": "../elsewhere"}, "name: a name becomes a folder"),
        ({"name": ""}, "name: a name becomes a folder"),
        ({1: 2}, "the key 1 is no text"),
    ],
)
def test_wrong_value_is_refused_where_it_stands(content, line):
    assert line in message(content)


def test_every_fault_is_listed_at_once():
    text = message({"datta": 1, "training": {"lr": "a", "epochs": -1}, "data": {"labels": {"lesion": 1.5}}})
    assert text.count("\n  - ") == 4


def test_nothing_but_a_mapping_is_a_recipe(tmp_path):
    for text in ("", "- 1\n- 2\n", "just words\n"):
        with pytest.raises(RecipeError, match="a recipe is a mapping of keys to values"):
            read_yaml(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x [1, 1]\nb: [*x, *x]\n", "line 2: aliases"),
        ("a: 1\nb: 2\na: 3\n", "line 1: repeated key a"),
        ("a:\n  b: 1\n  b: 2\n", "line 2: repeated key b"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "1" * 5000, "limit"),
        ("a: [1\n", "expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("? [1]\n: 2\n", "unhashable"),
        ("a: \x00\n", "special characters"),
    ],
)
def test_hostile_or_broken_yaml_is_refused_with_its_reason(tmp_path, text, reason):
    with pytest.raises(RecipeError, match="not valid YAML") as caught:
        read_yaml(written(tmp_path, text))
    assert reason in str(caught.value)


def test_alias_bomb_is_refused_before_it_grows(tmp_path):
    rungs = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    with pytest.raises(RecipeError, match="aliases"):
        read_yaml(written(tmp_path, "\n".join(rungs)))


def test_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("name: Lungenflügel".encode("utf-16"))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfname: ok\n")
    assert read_yaml(path) == {"name": "ok"}


def test_numbers_mean_what_they_look_like(tmp_path):
    content = read_yaml(written(tmp_path, "a: 3e-4\nb: 1E5\nc: 010\nd: 1:30\ne: 2024-01-02\nf: 0\ng: -7\nh: 1_000\n"))
    assert content == {"a": 3e-4, "b": 1e5, "c": "010", "d": "1:30", "e": "2024-01-02", "f": 0, "g": -7, "h": 1000}


def test_recipe_equals_itself_after_the_way_through_yaml(tmp_path):
    odd = ["3e-4", "1e10", "010", "1:30", "no", "null", "~", "", " x ", "2024-01-02", "*a", "&a", "- a", "a: b", "é\n#"]
    labels = {"background": 0, **{text: [1, 2] for text in odd if text}, "colour": "#00ff00"}
    recipe = validate_recipe(
        {
            **SMALLEST,
            "description": "Zeile eins\n  Zeile zwei: naïve, 100 %",
            "data": {"labels": labels, "image_size": [64, 96]},
            "reports": {"encoder": "some/model", "revision": "12345e7"},
            "teacher": {**TEACHER, "training": {"lr": 1e-5, "epochs": 3}},
            "student": {"name": "unguided", "options": {f"o{i}": text for i, text in enumerate(odd)}},
            "distill": [{"name": "l1", "weight": 1e-30, "taps": {"a": "b"}}],
            "seeds": [0, 1, 2],
        }
    )
    assert read_recipe(written(tmp_path, recipe.to_yaml())) == recipe


def test_control_and_student_share_their_training_and_the_teacher_may_differ():
    recipe = validate_recipe({**SMALLEST, "teacher": {**TEACHER, "training": {"epochs": 3}}})
    assert recipe.training_of("teacher").epochs == 3
    assert recipe.training_of("control") is recipe.training_of("student") is recipe.training


def test_recipe_extends_another_key_by_key(tmp_path):
    written(
        tmp_path, "name: base\nstudent: {name: unguided, size: small}\ntraining: {lr: 1e-3, epochs: 7}\n", "base.yaml"
    )
    child = written(tmp_path, "extends: base\nname: child\ntraining: {epochs: 9}\nseeds: [4]\n", "child.yaml")
    recipe = read_recipe(child)
    assert (recipe.name, recipe.student.size, recipe.training.lr, recipe.training.epochs) == ("child", "small", 1e-3, 9)
    assert recipe.extends is None


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_recipes_that_extend_in_a_circle_are_refused(tmp_path, names):
    for name, parent in zip(names, names[1:] + names[:1], strict=True):
        written(tmp_path, f"extends: {parent}\nname: {name}\n", f"{name}.yaml")
    with pytest.raises(RecipeError, match="extend each other in a circle"):
        read_recipe(tmp_path / "a.yaml")


def test_unknown_parent_and_unknown_recipe_say_so(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe file"):
        read_recipe(written(tmp_path, "extends: nowhere\nname: a\n"))
    with pytest.raises(RecipeError, match="no such recipe file"):
        read_recipe("no/such/recipe")


def test_merge_replaces_lists_and_null_removes_a_part():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    assert merge(base, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}


@pytest.fixture
def recipe_file(tmp_path):
    text = (
        "name: a\nstudent: {name: unguided}\nteacher: {segmentor: {name: guided}}\ndistill: [{name: l1}, {name: l2}]\n"
    )
    return written(tmp_path, text)


def test_changes_reach_fields_lists_and_new_parts(recipe_file):
    changes = [
        "training.lr=3e-4",
        "distill.1.weight=0.5",
        "seeds=[1, 2]",
        "data.labels={background: 0, lesion: 255}",
        "data.labels.nodule=7",
        "reports.revision=null",
        "data.licence=CC-BY-4.0",
        "student.size=tiny",
    ]
    recipe = read_recipe(recipe_file, changes)
    assert recipe.training.lr == 3e-4
    assert [d.weight for d in recipe.distill] == [1.0, 0.5]
    assert recipe.seeds == [1, 2]
    assert recipe.data.labels == {"background": 0, "lesion": 255, "nodule": 7}
    assert (recipe.reports.revision, recipe.data.licence, recipe.student.size) == (None, "CC-BY-4.0", "tiny")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("training.lr", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("distill.2.weight=1", "no such item in the list"),
        ("distill.x.weight=1", "no such item in the list"),
        ("distill.-1.weight=1", "no such item in the list"),
        ("distill=[l1]", "distill.0: "),
        ("seeds=[0]\nx: [", "not valid YAML"),
        ("training.lrr=1", "training.lrr: unknown key; did you mean lr?"),
        ("training..lr=1", "unknown key"),
        ("training.epochs=3e1", "training.epochs: Input should be a valid integer"),
    ],
)
def test_impossible_change_is_refused_with_its_reason(recipe_file, change, reason):
    with pytest.raises(RecipeError) as caught:
        read_recipe(recipe_file, [change])
    assert reason in str(caught.value)


def test_change_inside_a_single_value_or_an_empty_list_is_refused(tmp_path):
    path = written(tmp_path, "name: a\nstudent: {name: unguided}\nseeds: [0]\ndistill: []\n")
    with pytest.raises(RecipeError, match="single value, without fields"):
        read_recipe(path, ["seeds.0.x=1"])
    with pytest.raises(RecipeError, match="the list is empty"):
        read_recipe(path, ["distill.0.name=l1"])


def test_every_shipped_recipe_is_valid_and_found_by_name():
    for name in shipped_recipes():
        assert isinstance(read_recipe(name), Recipe)


def test_the_classes_of_another_recipe_are_not_mixed_with_ones_own(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nstudent: {name: unguided}\ndata: {channels: 1, labels: {background: 0, heart: 1}}\n"
    )
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nname: own\ndata: {labels: {background: 0, cell: 255}}\n")
    data = read_recipe(tmp_path / "own.yaml").data
    assert data.labels == {"background": 0, "cell": 255}
    assert data.channels == 1
