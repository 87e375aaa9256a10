"""Read folders of pictures with one subfolder per class, with or without train/val/test above."""

from __future__ import annotations

import functools
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from stages.common.cli import StageError, one_line
from stages.datasets.array_files import PART_WORDS
from stages.datasets.labelled_images import PARTS, Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
# These may store the camera's orientation. MPO: JPEG of some phones.
ROTATED = ("JPEG", "MPO", "WEBP", "TIFF")
ORIENTATION = ExifTags.Base.Orientation
DVC_CACHE = Path(".dvc/cache")  # with `cache.type: symlink`, DVC links data to its cache
MOST = 65535  # of 16 bits
AMBIGUOUS = "white can be 4095 (12 bits) or 65535 (16 bits); set prepare.white to it"
KINDS = {"1": "with one bit per pixel became grey", "P": "with a palette became RGB"}
EQUAL = "have equal channels; one was kept"
NAMED = 3  # examples in a message


class PictureError(StageError):
    """A picture that cannot be read. `prepare.skip_damaged` leaves it out."""


@dataclass
class Folder:
    """The contents of a folder: its subfolders, and the names of its pictures and other files.

    Pictures are names, not paths: 100,000 paths would need more memory than small pictures.
    """

    path: Path
    folders: list[Path] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
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
            found.pictures.append(entry.name)
        else:
            found.others.append(entry.name)
    return found


def read_pictures(path: Path, image_size: int, white: int, skip_damaged: bool) -> Source:
    """Read the pictures of a folder into uint8 arrays (n, height, width, 1 or 3), one per part.

    There is one channel if no picture has colour. If `image_size` is not 0, pictures are resized
    to squares of that side. `white` is the value of white in pictures of 16 bits, or 0 if it is not
    known. `skip_damaged` leaves out unreadable pictures instead of raising.
    """
    source = Source(path, channels_last=True)
    groups, class_names = find_pictures(path, source.notes)
    source.class_names = np.array(class_names)
    order = [(i, *each) for i, part in enumerate(PARTS) for each in groups.get(part, ())]
    counts = [len(folder.pictures) for _, _, folder in order]
    print(f"reading {sum(counts):,} pictures from {one_line(path)}", flush=True)
    folders = [folder for _, _, folder in order]
    found = functools.cache(lambda: white_of(_files(folders), white))
    x, kept = _read_all(folders, image_size, found, skip_damaged, source.notes)
    source.scaled = white > 0 and found.cache_info().currsize > 0
    parts, labels = (np.repeat([each[k] for each in order], counts)[kept] for k in (0, 1))
    for i, part in enumerate(PARTS):
        if part in groups:
            start, end = np.searchsorted(parts, [i, i + 1])
            source.arrays |= {f"x_{part}": x[start:end], f"y_{part}": labels[start:end]}
            where = f"{part} pictures"
            source.titles |= {f"x_{part}": where, f"y_{part}": where}
    return source


# --- finding ------------------------------------------------------------------------------


def find_pictures(
    path: Path, notes: list[str]
) -> tuple[dict[str, list[tuple[int, Folder]]], list[str]]:
    """Return the labels and class folders of each part, and the class names, sorted.

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
                f"{path / top.pictures[0]} lies outside the class folders; put each picture into "
                "the subfolder of its class"
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
    labelled = {
        part: sorted(((number[_class_name(f)], f) for f in folders), key=lambda each: each[0])
        for part, folders in groups.items()
    }
    return labelled, class_names


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
                f"{folder / inside[folder].pictures[0]} lies outside the class folders; put each "
                "picture into the subfolder of its class"
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


def _files(folders: Iterable[Folder]) -> Iterator[Path]:
    """Yield the pictures in folders."""
    return (folder.path / name for folder in folders for name in folder.pictures)


def _read_all(
    folders: list[Folder],
    image_size: int,
    white: Callable[[], int],
    skip_damaged: bool,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures, and which of the files they are (bool): all but damaged ones."""
    from tqdm import tqdm

    total = sum(len(folder.pictures) for folder in folders)
    x, kept = np.empty((0, 0, 0, 1), np.uint8), np.zeros(total, bool)
    used = grey = 0
    damaged: list[str] = []
    done: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    progress = tqdm(_files(folders), total=total, unit=" pictures", disable=None)
    for i, file in enumerate(progress):
        try:
            pixels, size, changes = read_picture(file, image_size, white)
        except PictureError as error:
            if not skip_damaged:
                raise StageError(
                    f"{error}; repair or delete it, or set prepare.skip_damaged=true"
                ) from None
            damaged.append(file.name)
            continue
        if not used:
            x, first = _allocated((total, *pixels.shape)), file
        if pixels.shape[:2] != x.shape[1:3]:
            raise StageError(
                f"the pictures differ in size: {first} has {_size(x.shape[1:3])} pixels, "
                f"{file} {_size(pixels.shape)}; set prepare.image_size, for example to 28"
            )
        if pixels.shape[2] > x.shape[3]:  # the first picture with colours
            before, x = x, _allocated((total, *pixels.shape))
            x[:used] = before[:used]
        x[used], kept[i] = pixels, True
        used += 1
        grey += pixels.shape[2] == 1
        sizes.add(size)
        done.update(changes)
    if damaged:
        some = ", ".join(damaged[:NAMED]) + (", …" if len(damaged) > NAMED else "")
        notes.append(f"warning: {len(damaged)} damaged pictures were left out: {some}")
    if x.shape[3] == 3 and (plain := grey - done.pop(EQUAL, 0)):
        done["are grey and got three equal channels, because others have colours"] = plain
    notes += [f"{count} pictures {change}" for change, count in done.items()]
    if image_size and sizes - {(image_size, image_size)}:
        ordered = sorted(sizes)
        spread = _size(ordered[0]) + (f" to {_size(ordered[-1])}" if len(sizes) > 1 else "")
        notes.append(
            f"pictures of {spread} pixels were resized to {_size((image_size, image_size))}"
        )
    return x[:used], kept


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


def read_picture(
    path: Path, image_size: int, white: Callable[[], int] | None = None
) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    """Return a picture as uint8 (height, width, 1 or 3), its size in the file, and what was done.

    `white` returns the value of white in pictures of 16 bits; without it, each picture decides.

    Raises
    ------
    PictureError
        The file is damaged, not a picture, or larger than Pillow's limit on pixels.
    StageError
        The value of white is not known, or a value is larger.
    """
    image, changes = decoded(path, white)
    if image.mode == "RGBA":
        image = on_white(image)
        changes.append("with transparency were placed on white")
    size = image.size[::-1]
    pixels = np.asarray(resized(image, image_size) if image_size else image)
    if pixels.ndim == 2:
        return pixels[..., None], size, changes
    if (pixels == pixels[..., :1]).all():
        return pixels[..., :1], size, [*changes, EQUAL]
    return pixels, size, changes


@contextmanager
def _only_bombs() -> Iterator[None]:
    """Ignore Pillow's warnings about details of a file, but not about its number of pixels."""
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@_only_bombs()
def decoded(path: Path, white: Callable[[], int] | None = None) -> tuple[Image.Image, list[str]]:
    """Return an upright picture of the mode L, RGB or, with transparency, RGBA, and what was done.

    `white` and errors are those of `read_picture`.
    """
    changes = []
    try:
        with Image.open(path, formats=FORMATS) as file:
            if getattr(file, "n_frames", 1) > 1:
                changes.append("have several frames; the first one was used")
            image: Image.Image = file
            if file.format in ROTATED and file.getexif().get(ORIENTATION, 1) in range(2, 9):
                changes.append("were turned upright, as their EXIF data say")
                if file.format != "TIFF":  # Pillow turns it while it loads it
                    image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                image, change = _as_8_bits(image, path, white)
                changes.append(change)
            elif image.has_transparency_data:
                image = image.convert("RGBA")
            elif image.mode not in ("L", "RGB"):
                changes.append(KINDS.get(image.mode, f"with {image.mode} colours became RGB"))
                image = image.convert("L" if image.mode == "1" else "RGB")
            image.load()
    except Exception as error:  # Pillow's decoders raise many types
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise PictureError(f"{path} is a link to a file that does not exist") from None
        if isinstance(error, MemoryError | StageError) or getattr(error, "filename", None):
            raise
        reason = one_line(error).replace(str(path), path.name)[:120]
        raise PictureError(f"{path} is damaged or not a picture ({reason})") from None
    return image, changes


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGBA picture as RGB, with white where it is transparent."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def white_of(files: Iterable[Path], white: int) -> int:
    """Return the value of white in those of the files that are pictures of 16 bits.

    It is `white`, unless that is 0: then the largest value in all files decides.

    Raises
    ------
    StageError
        White can have two values.
    """
    if white:
        return white
    highest, file = max((_highest(file), file) for file in files)
    if 255 < highest < 4096:
        raise StageError(f"{file}: the pictures of 16 bits go to {highest}; {AMBIGUOUS}")
    return MOST if highest > 255 else 255


@_only_bombs()
def _highest(path: Path) -> int:
    """Return the largest value in a picture of 16 bits; 0 for other and for damaged files."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return int(np.asarray(image).max()) if image.mode.startswith("I") else 0
    except Exception:  # it is reported when it is read
        return 0


def _as_8_bits(
    image: Image.Image, path: Path, white: Callable[[], int] | None
) -> tuple[Image.Image, str]:
    """Return a grey picture of 16 or 32 bits as 8 bits, and what was done."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > MOST:
        raise ValueError(f"its values are of the kind {image.mode}; save it with 8 or 16 bits")
    high = white() if white else white_of([path], 0)
    if values.max() > high:
        raise StageError(f"{path} goes to {values.max()}, but prepare.white is {high}")
    made = Image.fromarray(np.rint(values * (255 / high)).astype(np.uint8))
    return made, f"of 16 bits: 0 to {high} became 0 to 255"


def resized(image: Image.Image, side: int) -> Image.Image:
    """Return a picture scaled to `side` × `side`, with antialiasing, whatever its aspect ratio."""
    return image.resize((side, side), Image.Resampling.BILINEAR)
