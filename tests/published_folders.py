"""Small folders of the published data sets' layouts, names, file kinds and tables, with made-up content.

Layouts and names: specification of text-annotated data sets, sections 1 to 3.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48
Sentence = Callable[[str, str], str]


def infection(height: str, side: str) -> str:
    """In the grammar of the lung data sets."""
    return f"Unilateral pulmonary infection, one infected area, {height} {side} lung."


def nuclei(height: str, side: str) -> str:
    """In the manner of MoNuSeg's sentences."""
    return f"The nuclei density in the {height} {side} is high."


def scene(index: int, sentence: Sentence, colour: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """A noisy picture with a bright square, its mask of 0 and 255, and the sentence that says where it is."""
    noise = np.random.default_rng(index)
    height, side = ("upper", "lower")[index % 2], ("left", "right")[index // 2 % 2]
    row, column = 6 + 22 * (height == "lower"), 6 + 22 * (side == "right")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[row : row + 14, column : column + 14] = 255
    image = noise.integers(0, 120, (SIDE, SIDE, 3) if colour else (SIDE, SIDE), dtype=np.uint8)
    image[mask > 0] += 120
    return image, mask, sentence(height, side)


def write_lvit(
    root: Path,
    names: dict[str, list[str]],
    sentence: Sentence,
    *,
    prefix: str = "",
    test_ending: str = "png",
    colour: bool = False,
    combined: bool = False,
) -> Path:
    """{Train,Val,Test}_Folder with img, labelcol and a sheet. combined: one sheet for train and val."""
    index = 0
    sheets: dict[Path, list[tuple[str, str]]] = {}
    for split, stems in names.items():
        folder = root / f"{split}_Folder"
        sheet = folder / f"{split}_text.xlsx"
        if combined and split != "Test":
            sheet = root / "Train_Folder" / "Train_Val_text.xlsx"
        for stem in stems:
            image, mask, text = scene(index, sentence, colour)
            index += 1
            ending = test_ending if split == "Test" else "png"
            _save(folder / "img" / f"{stem}.{ending}", image)
            _save(folder / "labelcol" / f"{prefix}{stem}.png", mask)
            sheets.setdefault(sheet, []).append((f"{prefix}{stem}.png", text))
    for sheet, rows in sheets.items():
        _write_sheet(sheet, rows)
    return root


def write_textfreekd(
    root: Path,
    names: dict[str, list[str]],
    sentence: Sentence,
    *,
    prefix: str = "",
    test_ending: str = "png",
    colour: bool = False,
    odd: bool = False,
) -> Path:
    """{Train,Test} with Images and GTs, and prompt/{train,test}.csv, whose rows name the image or the prefixed mask.

    odd: as third-party copies have it, one row with a backslash path, and one mask with three channels.
    """
    index = 0
    (root / "prompt").mkdir(parents=True)
    for split, stems in names.items():
        rows = ["Image,Description"]
        for stem in stems:
            image, mask, text = scene(index, sentence, colour)
            ending = test_ending if split == "Test" else "png"
            listed = f"{prefix}{stem}.{'png' if prefix else ending}"
            if odd and index == 1:
                listed, mask = f"GTs\\{listed}", np.repeat(mask[..., None], 3, axis=2)
            index += 1
            _save(root / split / "Images" / f"{stem}.{ending}", image)
            _save(root / split / "GTs" / f"{prefix}{stem}.png", mask)
            rows.append(f'{listed},"{text}"')
        (root / "prompt" / f"{split.lower()}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def qata(root: Path, layout: str) -> Path:
    """Masks are `mask_covid_1.png` beside `covid_1.png`, and a second family of long names."""
    train = [*(f"covid_{n}" for n in (3, 1, 20, 4, 11)), "sub-S09_ses-E1_run-1_bp-chest_vp-ap_dx"]
    names = {"Train": train, "Test": ["covid_7", "covid_8", "sub-S10_ses-E2_run-1_bp-chest_vp-ap_dx", "covid_9"]}
    if layout == "textfreekd":
        return write_textfreekd(root, names, infection, prefix="mask_", odd=True)
    return write_lvit(root, {**names, "Train": train[:4], "Val": train[4:]}, infection, prefix="mask_", combined=True)


def mosmed(root: Path, layout: str) -> Path:
    """Image and mask share a name, which tells the patient and the slice."""
    train = [
        *(f"Jun_coronacases_case{n}_{n * 7}" for n in (8, 1, 2, 3)),
        "Morozov_study_0017_20",
        "Morozov_study_0002_7",
    ]
    names = {"Train": train, "Test": ["Jun_radiopaedia_4_85506_1_13", "Morozov_study_0281_11", "Morozov_study_0282_9"]}
    if layout == "textfreekd":
        return write_textfreekd(root, names, infection)
    return write_lvit(root, {"Train": train[:4], "Val": train[4:], "Test": names["Test"]}, infection)


def monuseg(root: Path, layout: str) -> Path:
    """Colour; the test images are TIFF, all masks PNG."""
    train = [f"TCGA-{n}-01Z-00-DX1" for n in ("A7-A13E", "A7-A13F", "AR-A1AK", "B0-5711", "HE-7128", "KB-A93J")]
    names = {"Train": train, "Test": ["TCGA-2Z-A9J9-01A-01-TS1", "TCGA-44-2665-01B-06-BS6", "TCGA-69-7764-01A-01-TS1"]}
    if layout == "textfreekd":
        return write_textfreekd(root, names, nuclei, test_ending="tif", colour=True)
    return write_lvit(
        root,
        {"Train": train[:4], "Val": train[4:], "Test": names["Test"]},
        nuclei,
        test_ending="tif",
        colour=True,
    )


DATA_SETS: dict[str, Callable[[Path, str], Path]] = {"qata": qata, "mosmed": mosmed, "monuseg": monuseg}


def organs(shape: tuple[int, ...], classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(image float32 in 0..1, label uint8) of a volume [D, H, W]: noise, and a bright block for each class.

    The first slice is empty, as at the ends of a scan.
    """
    noise = np.random.default_rng(seed)
    image = noise.random(shape, dtype=np.float32) * 0.3
    label = np.zeros(shape, np.uint8)
    width = shape[2] // classes
    for number in range(1, classes):
        place = (slice(1, None), slice(shape[1] // 4, shape[1] // 2), slice(number * width, number * width + width))
        label[place] = number
        image[place] += 0.7 * number / classes
    return image, label


def ssl4mis(root: Path, depth: int = 11, side: int = 24) -> Path:
    """ACDC as SSL4MIS has it: slices of two training patients, volumes of one validation and one test patient."""
    data = root / "ACDC" / "data"
    (data / "slices").mkdir(parents=True)
    lists: dict[str, list[str]] = {"train_slices": [], "train": [], "val": [], "test": []}
    for number, split in ((99, "train"), (20, "train"), (28, "val"), (11, "test")):
        for frame in (1, 2):
            volume = f"patient{number:03d}_frame{frame:02d}"
            image, label = organs((depth, side, side), 4, seed=10 * number + frame)
            lists[split].append(volume)
            if split != "train":
                _save_hdf5(data / f"{volume}.h5", image, label)
                continue
            for at in reversed(range(depth)):
                lists["train_slices"].append(f"{volume}_slice_{at + 1}")
                _save_hdf5(data / "slices" / f"{lists['train_slices'][-1]}.h5", image[at], label[at])
    for name, rows in lists.items():
        (root / "ACDC" / f"{name}.list").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def synapse(root: Path, depth: int = 4, side: int = 36, lists: bool = True) -> Path:
    """Synapse as TransUNet prepares it: npz slices of three training scans, HDF5 volumes of two test scans."""
    rows: dict[str, list[str]] = {"train": [], "test_vol": []}
    for number in (5, 40, 10, 8, 1):
        image, label = organs((depth, side, side), 9, seed=number)
        scan = f"case{number:04d}"
        if number in (8, 1):
            (root / "test_vol_h5").mkdir(exist_ok=True)
            _save_hdf5(root / "test_vol_h5" / f"{scan}.npy.h5", image, label.astype(np.float32))
            rows["test_vol"].append(scan)
            continue
        (root / "train_npz").mkdir(parents=True, exist_ok=True)
        for at in range(depth):
            rows["train"].append(f"{scan}_slice{at:03d}")
            np.savez(root / "train_npz" / f"{rows['train'][-1]}.npz", image=image[at], label=label[at])
    if lists:
        (root / "lists" / "lists_Synapse").mkdir(parents=True)
        for name, names in rows.items():
            (root / "lists" / "lists_Synapse" / f"{name}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return root


def _save_hdf5(path: Path, image: np.ndarray, label: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, compression="gzip")
        file.create_dataset("label", data=label, compression="gzip")


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_sheet(path: Path, rows: list[tuple[str, str]]) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(("Image", "Description"))
    for row in rows:
        book.active.append(row)
    book.save(path)


def acdc(root: Path, shape: tuple[int, int, int] = (4, 24, 28)) -> Path:
    """The challenge's own folders: three patients for training, one for testing, two frames and the cycle of each."""
    for number, split in ((1, "training"), (2, "training"), (7, "training"), (101, "testing")):
        patient = f"patient{number:03d}"
        folder = root / "database" / split / patient
        folder.mkdir(parents=True)
        for frame in (1, 12):
            image, label = organs(shape, 4, seed=100 * number + frame)
            for name, values in (("", (image * 900).astype(np.int16)), ("_gt", label)):
                save_nifti(folder / f"{patient}_frame{frame:02d}{name}.nii.gz", values, (10.0, 1.5, 1.25))
        save_nifti(folder / f"{patient}_4d.nii.gz", image, (10.0, 1.5, 1.25))
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    return root


def volumes(root: Path, masks: str = "masks", endings: tuple[str, ...] = (".nii.gz", ".nii", ".nii.gz")) -> Path:
    """Volumes in several sizes and spacings beside their label volumes."""
    for index, ending in enumerate(endings):
        image, label = organs((3 + index, 20, 24), 3, seed=index)
        for folder, values in (("images", image), (masks, label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            save_nifti(root / folder / f"scan{index}{ending}", values, (3.0 + index, 0.8, 0.7))
    return root


def nnunet(root: Path, ending: str = ".nii.gz", testing: bool = True) -> Path:
    """Four training and two test cases in nnU-Net's raw layout."""
    for index in range(6 if testing else 4):
        which, name = ("Tr", f"heart_{index:03d}") if index < 4 else ("Ts", f"heart_{index:03d}")
        image, label = organs((4, 20, 24), 3, seed=index)
        for folder, stem, values in ((f"images{which}", f"{name}_0000", image), (f"labels{which}", name, label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if ending == ".png":
                _save(root / folder / f"{stem}.png", (values[1] * (1 if values is label else 255)).astype(np.uint8))
            else:
                save_nifti(root / folder / f"{stem}{ending}", values, (6.0, 1.25, 1.25))
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "left atrium": 1, "wall": 2},
        "numTraining": 4,
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def save_nifti(path: Path, slices: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Slices [D, H, W] as a volume in the axial view. spacing: (slice, row, column) in mm."""
    import nibabel

    depth, row, column = spacing
    nibabel.Nifti1Image(np.transpose(slices, (2, 1, 0)), np.diag([-column, -row, depth, 1.0])).to_filename(path)
