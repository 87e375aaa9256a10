"""Made-up PNG and JPEG files for `stages.predict`."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_common import Target, damaged
from hypothesis import strategies as st
from PIL import Image


def picture(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(15, 20))
    image.convert(options.pop("mode", "RGB")).save(file, kind, **options)
    return file.getvalue()


def with_checksums(content: bytes) -> bytes:
    """Return a PNG whose chunks' checksums are right again, as far as its chunks go."""
    at, made = 8, bytearray(content)
    while at + 12 <= len(made):
        size = int.from_bytes(made[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(made):
            break
        made[end : end + 4] = zlib.crc32(made[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(made)


def pictures() -> Target:
    """A PNG or JPEG for `stages.predict`."""
    from stages.predict import as_input, read_picture

    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    png = [picture("PNG", mode=mode) for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16")]
    jpeg = [picture("JPEG", mode=mode, exif=exif) for mode in ("L", "RGB", "CMYK")]
    bomb = zipped_picture(40_000, 40_000)
    inputs = st.one_of(
        st.sampled_from(png).flatmap(damaged), st.sampled_from(jpeg).flatmap(damaged),
        st.sampled_from([*png, bomb]).flatmap(damaged).map(with_checksums), st.binary(),
    )  # fmt: skip

    def read(path: Path) -> object:
        return as_input(read_picture(path), [28, 28, 1], "mnist", 0.0)

    return Target(inputs, read, png[1:2], ".png")


def zipped_picture(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is very large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + bytes(4)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )
    return with_checksums(b"\x89PNG\r\n\x1a\n" + parts)
