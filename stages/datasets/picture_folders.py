"""Read folders of pictures with one subfolder per class, with or without train/val/test above."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stages.common.cli import StageError, one_line
from stages.datasets.array_files import PART_WORDS
from stages.datasets.labelled_images import PARTS, Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
# These may store the camera's orientation. MPO: JPEG of some phones. Pillow turns TIFF itself.
ROTATED = ("JPEG", "MPO", "WEBP")
DVC_CACHE = Path(".dvc/cache")  # with `cache.type: symlink`, DVC links data to its cache
TO_8_BITS = 257  # 65535 / 255
NAMED = 3  # examples in a message


@dataclass
class Folder:
    """The contents of a folder: its subfolders, its pictures and the names of its other files."""

    path: Path
    folders: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def listing(path: Path, root: Path) -> Folder:
    """Return the sorted entries of a folder, without hidden ones.

    Raises
    ------
    StageError
        A link leads out of the dataset `root`.
    """
    found = Folder(path)
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name.startswith((".", "__MACOSX", "Thumbs.db")) or entry.name.endswith(".dvc"):
            continue
        file = Path(entry.path)
        if entry.is_symlink():
            target = file.resolve()
            if not any(target.is_relative_to(f.resolve()) for f in (root, DVC_CACHE)):
                raise StageError(f"{file} is a link that leaves {root}; copy the file instead")
        if entry.is_dir():
            found.folders.append(file)
        elif entry.name.lower().endswith(SUFFIXES):
            found.pictures.append(file)
        else:
            found.others.append(entry.name)
    return found


def read_pictures(path: Path, image_size: int, skip_damaged: bool) -> Source:
    """Read the pictures of a folder into uint8 arrays (n, height, width, 1 or 3), one per part.

    There is one channel if no picture has colour. If `image_size` is not 0, pictures are resized
    to squares of that side. `skip_damaged` leaves out unreadable pictures instead of raising.
    """
    source = Source(path, channels_last=True)
    files, class_names = find_pictures(path, source.notes)
    source.class_names = np.array(class_names)
    order = [(file, label, part) for part in PARTS for file, label in files.get(part, ())]
    print(f"reading {len(order):,} pictures from {one_line(path)}", flush=True)
    x, kept = _read_all([file for file, _, _ in order], image_size, skip_damaged, source.notes)
    labels = np.array([label for _, label, _ in order], np.int32)[kept]
    parts = np.array([PARTS.index(part) for _, _, part in order])[kept]
    for i, part in enumerate(PARTS):
        if part in files:
            start, end = np.searchsorted(parts, [i, i + 1])
            source.arrays |= {f"x_{part}": x[start:end], f"y_{part}": labels[start:end]}
            where = f"{part} pictures"
            source.titles |= {f"x_{part}": where, f"y_{part}": where}
    return source


# --- finding ------------------------------------------------------------------------------


def find_pictures(
    path: Path, notes: list[str]
) -> tuple[dict[str, list[tuple[Path, int]]], list[str]]:
    """Return the pictures and labels of each part, and the class names, sorted.

    Raises
    ------
    StageError
        The folder does not have one subfolder per class, or there is only one class.
    """
    top = listing(path, path)
    named = {folder: _part_of(folder.name) for folder in top.folders}
    inside = {folder: listing(folder, path) for folder in top.folders}
    divided = any(part and inside[folder].folders for folder, part in named.items())
    if not divided:
        if top.pictures:
            raise StageError(
                f"{top.pictures[0]} lies outside the class folders; put each picture into the "
                "subfolder of its class"
            )
        if top.folders and all(named.values()):
            raise StageError(
                f"{path}: the folders {_listed(named)} have no class folders; put each picture "
                "into the subfolder of its class"
            )
        groups = {"train": list(inside.values())}
    else:
        groups = _parts(path, named, inside, notes)
    everything = [folder for folders in groups.values() for folder in folders]
    for folder in everything:
        if folder.folders:
            raise StageError(
                f"{folder.folders[0]} lies below the class folder {folder.path.name!r}; put the "
                "pictures directly into the folder of their class"
            )
    class_names = sorted({_class_name(folder) for folder in everything}, key=natural)
    if not any(folder.pictures for folder in everything):
        raise StageError(f"{path} has no picture ({', '.join(SUFFIXES)})")
    if len(class_names) < 2:
        raise StageError(
            f"{path} has one class only, {class_names[0]!r}; one subfolder per class is needed"
        )
    others = [name for folder in (top, *everything) for name in folder.others]
    if others:
        notes.append(f"not used: {len(others)} other files, for example {others[0]}")
    number = {name: i for i, name in enumerate(class_names)}
    files = {
        part: sorted(
            ((file, number[_class_name(folder)]) for folder in folders for file in folder.pictures),
            key=lambda each: (each[1], each[0].name),
        )
        for part, folders in groups.items()
    }
    return files, class_names


def _parts(
    path: Path,
    named: dict[Path, str | None],
    inside: dict[Path, Folder],
    notes: list[str],
) -> dict[str, list[Folder]]:
    """Return the class folders in the folders train, val and test."""
    groups: dict[str, list[Folder]] = {}
    for folder, part in named.items():
        if part is None:
            raise StageError(
                f"{path} holds two layouts: the parts {_listed(f for f in named if named[f])} and "
                f"the folder {folder.name!r}; keep one of them"
            )
        if part in groups:
            raise StageError(f"{path} holds the part {part!r} twice; rename one of the folders")
        if inside[folder].folders:
            groups[part] = [listing(each, path) for each in inside[folder].folders]
        elif part == "test":
            notes.append(f"{folder.name} has no class folders, so it is not used")
        else:
            raise StageError(f"{folder} has no class folders")
        if inside[folder].folders and inside[folder].pictures:
            raise StageError(
                f"{inside[folder].pictures[0]} lies outside the class folders; put each picture "
                "into the subfolder of its class"
            )
    if "train" not in groups:
        raise StageError(f"{path} has no folder 'train' next to {_listed(named)}")
    return groups


def _listed(paths: object) -> str:
    return ", ".join(repr(path.name) for path in list(paths)[:NAMED])


def _part_of(name: str) -> str | None:
    return next((part for part, words in PART_WORDS.items() if name.lower() in words), None)


def _class_name(folder: Folder) -> str:
    """Return the name of a class folder with composed accents (NFC); macOS may split them (NFD)."""
    return unicodedata.normalize("NFC", folder.path.name)


def natural(name: str) -> tuple[bool, int, str]:
    """Return a key that sorts numbers by value and other names as text."""
    number = name.isdecimal() and name.isascii()
    return not number, int(name) if number and len(name) < 100 else 0, name


# --- reading ------------------------------------------------------------------------------


def _read_all(
    files: list[Path], image_size: int, skip_damaged: bool, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures, and which of the files they are (all, or without damaged ones)."""
    from tqdm import tqdm

    x = np.empty((0, 0, 0, 1), np.uint8)
    kept, damaged = [], []
    done: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    with warnings.catch_warnings(action="ignore"):  # Pillow's, about details of a file
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i, file in enumerate(tqdm(files, unit=" pictures", disable=None)):
            try:
                pixels, size, changes = read_picture(file, image_size)
            except StageError as error:
                if not skip_damaged:
                    raise StageError(
                        f"{error}; repair or delete it, or set prepare.skip_damaged=true"
                    ) from None
                damaged.append(file.name)
                continue
            if not kept:
                x, first = _allocated((len(files), *pixels.shape)), file
            if pixels.shape[:2] != x.shape[1:3]:
                raise StageError(
                    f"the pictures differ in size: {first} has {_size(x.shape[1:3])} pixels, "
                    f"{file} {_size(pixels.shape)}; set prepare.image_size, for example to 28"
                )
            if pixels.shape[2] > x.shape[3]:  # the first picture with colours
                grey, x = x, _allocated((len(files), *pixels.shape))
                x[: len(kept)] = grey[: len(kept)]
            x[len(kept)] = pixels
            kept.append(i)
            sizes.add(size)
            done.update(changes)
    if damaged:
        some = ", ".join(damaged[:NAMED]) + (", …" if len(damaged) > NAMED else "")
        notes.append(f"warning: {len(damaged)} damaged pictures were left out: {some}")
    notes += [f"{count} pictures {change}" for change, count in done.items()]
    if image_size and sizes - {(image_size, image_size)}:
        ordered = sorted(sizes)
        spread = _size(ordered[0]) + (f" to {_size(ordered[-1])}" if len(sizes) > 1 else "")
        notes.append(
            f"pictures of {spread} pixels were resized to {_size((image_size, image_size))}"
        )
    return x[: len(kept)], np.array(kept, int)


def _allocated(shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):
        raise StageError(
            f"{shape[0]} pictures of {_size(shape[1:])} pixels do not fit into memory; set a "
            "smaller prepare.image_size"
        ) from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"


def read_picture(path: Path, image_size: int) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    """Return a picture as uint8 (height, width, 1 or 3), its size in the file, and what was done.

    Raises
    ------
    StageError
        The file is damaged, not a picture, or larger than Pillow's limit on pixels.
    """
    image, changes = decoded(path)
    if image.mode == "RGBA":
        image = on_white(image)
        changes.append("with transparency were placed on white")
    size = image.size[::-1]
    pixels = np.asarray(resized(image, image_size) if image_size else image)
    if pixels.ndim == 2:
        return pixels[..., None], size, changes
    grey = (pixels == pixels[..., :1]).all()
    return pixels[..., :1] if grey else pixels, size, changes


def decoded(path: Path) -> tuple[Image.Image, list[str]]:
    """Return an upright picture of the mode L, RGB or, with transparency, RGBA, and what was done.

    Errors are those of `read_picture`.
    """
    changes = []
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file) if file.format in ROTATED else file
            if getattr(file, "n_frames", 1) > 1:
                changes.append("have several frames; the first one was used")
            if image.mode.startswith(("I", "F")):
                image, deep = _as_8_bits(image)
                changes += ["of 16 bits were scaled to 8 bits"] * deep
            elif image.has_transparency_data:
                image = image.convert("RGBA")
            elif image.mode not in ("L", "RGB"):
                image = image.convert("L" if image.mode == "1" else "RGB")
            image.load()
    except Exception as error:  # Pillow's decoders raise many types
        if isinstance(error, MemoryError) or getattr(error, "filename", None):
            raise
        reason = one_line(error).replace(str(path), path.name)[:120]
        raise StageError(f"{path} is damaged or not a picture ({reason})") from None
    return image, changes


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGBA picture as RGB, with white where it is transparent."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _as_8_bits(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return a grey picture of 16 or 32 bits as 8 bits, and whether its values were scaled."""
    values = np.asarray(image)
    deep = image.mode.startswith("I;16") or values.max() > 255
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= 2**16:
        raise ValueError(f"its values are of the kind {image.mode}; save it with 8 or 16 bits")
    values = np.rint(values / TO_8_BITS) if deep else values
    return Image.fromarray(values.astype(np.uint8)), deep


def resized(image: Image.Image, side: int) -> Image.Image:
    """Return a picture scaled to `side` × `side`, with antialiasing, whatever its aspect ratio."""
    return image.resize((side, side), Image.Resampling.BILINEAR)
