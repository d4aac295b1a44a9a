"""Images are found below any mixture of files and folders, in a fixed order, under names that do not clash."""

from pathlib import Path

from preceptor.delivery.listing import list_sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0" * 128 + b"DICM" if "IM" in name or "DICOMDIR" in name else b"x")


def listed(paths, out="nowhere") -> list[tuple[str, str]]:
    return [(source.relative.as_posix(), source.path.name) for source in list_sources(paths, Path(out))]


def test_folder_is_listed_with_its_subfolders_in_order(tmp_path):
    touch(tmp_path, "b.png", "a.JPG", "sub/c.nii.gz", "sub/deep/d.tif", "another/a.png")
    assert listed([tmp_path]) == [
        (".", "a.JPG"),
        (".", "b.png"),
        ("another", "a.png"),
        ("sub", "c.nii.gz"),
        ("sub/deep", "d.tif"),
    ]


def test_other_files_hidden_files_and_the_output_are_passed_over(tmp_path):
    touch(tmp_path, "a.png", "notes.txt", ".hidden.png", ".git/b.png", "out/a.png", "README", "DICOMDIR")
    assert listed([tmp_path], tmp_path / "out") == [(".", "a.png")]


def test_scanner_files_without_an_ending_are_found(tmp_path):
    touch(tmp_path, "series/IM0001", "series/README")
    assert listed([tmp_path]) == [("series", "IM0001")]


def test_file_given_by_name_is_listed_whatever_it_is(tmp_path):
    touch(tmp_path, "a.docx")
    assert listed([tmp_path / "a.docx", tmp_path / "missing.png"]) == [(".", "a.docx"), (".", "missing.png")]


def test_equal_names_in_different_folders_keep_their_folders(tmp_path):
    touch(tmp_path, "x/1/a.png", "x/2/a.png")
    assert listed([tmp_path / "x/1/a.png", tmp_path / "x/2/a.png"]) == [("1", "a.png"), ("2", "a.png")]
    assert listed([tmp_path / "x/1", tmp_path / "x/2"]) == [("1", "a.png"), ("2", "a.png")]
    assert listed([tmp_path / "x/1"]) == [(".", "a.png")]


def test_parent_folders_in_a_path_do_not_leave_the_output(tmp_path):
    touch(tmp_path, "x/a.png", "y/b.png")
    for source in list_sources([tmp_path / "x" / ".." / "y", tmp_path / "x" / "a.png"], tmp_path / "out"):
        assert ".." not in source.relative.parts
        assert not source.relative.is_absolute()


def test_no_path_gives_no_image(tmp_path):
    assert listed([]) == []
    assert listed([tmp_path]) == []
