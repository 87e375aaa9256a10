"""The architecture of a model as a table and as a drawing, from the rows that `evaluate` wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

HEADS = ("layer", "output", "parameters", "share (%)", "multiply-adds", "share (%)")
LONGEST = 5  # time steps that are all drawn; of more, the first two and the last

Layers = Sequence[Mapping[str, Any]]  # as returned by `counting.architecture`


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as `26×26×32`."""
    return "×".join(map(str, shape))


def title(layer: Mapping[str, Any]) -> str:
    """Return a title for a layer, such as `Conv2D 3×3` or `LSTM in both directions, 28 rows`."""
    parts = [layer["kind"], shape_text(layer["kernel"])]
    text = " ".join(part for part in parts if part)
    if layer["bidirectional"]:
        text += " in both directions"
    return text + (f", {layer['steps']} {layer['step']}s" if layer["steps"] else "")


def layer_table(layers: Layers) -> list[list[str]]:
    """Return one line of texts per layer, in the columns of `HEADS`, and the totals."""
    totals = {
        key: sum(layer[key] for layer in layers) for key in ("parameters", "multiply_adds")
    }  # fmt: skip
    lines = []
    for name, output, row in [
        *((title(layer), shape_text(layer["output"]), layer) for layer in layers),
        ("total", "", totals),
    ]:
        counts = [
            (f"{row[key]:,}", f"{100 * row[key] / total:.1f}" if total else "–")
            for key, total in totals.items()
        ]
        lines.append([name, output, *(text for pair in counts for text in pair)])
    return lines


def drawn(layers: Layers) -> list[Mapping[str, Any]]:
    """Return the layers worth drawing: those with products, and poolings."""
    return [layer for layer in layers if layer["multiply_adds"] or "Pooling" in layer["kind"]]


def time_steps(layer: Mapping[str, Any]) -> list[str]:
    """Return the labels of a recurrent layer's time steps: `row 1, row 2, …, row 28`."""
    numbers = range(1, layer["steps"] + 1)
    shown = [f"{layer['step']} {number}" for number in numbers]
    return shown if len(shown) <= LONGEST else [*shown[:2], "…", shown[-1]]


def blocks(layers: Layers) -> list[dict[str, Any]]:
    """Return the parts of a drawing for the page, from left to right.

    A part is the data, ``shape`` with ``height`` and ``width`` in rem, or a layer: its ``title``
    and, unrolled over time, its ``cells`` and their ``steps``.
    """
    shapes = [layers[0]["input"], *(layer["output"] for layer in drawn(layers))]
    largest = max(math.log2(1 + size) for shape in shapes for size in shape)
    parts = []
    for layer, shape in zip([None, *drawn(layers)], shapes, strict=True):
        if layer is not None:
            steps = time_steps(layer)
            cells = ["…" if step == "…" else layer["kind"] for step in steps]
            parts.append({"title": title(layer), "steps": steps, "cells": cells,
                          "both": layer["bidirectional"]})  # fmt: skip
        height, width = (shape[-3], shape[-1]) if len(shape) > 2 else (shape[-1], 1)
        sizes = [0.5 + 3 * math.log2(1 + size) / largest for size in (height, width)]
        parts.append({"shape": shape_text(shape), "height": sizes[0], "width": sizes[1]})
    return parts


def as_text(layers: Layers) -> str:
    """Return a drawing in text, one line per shape; recurrent layers are unrolled over time."""
    lines = [shape_text(layers[0]["input"])]
    for layer in drawn(layers):
        if labels := time_steps(layer):
            arrow = " ⇄ " if layer["bidirectional"] else " → "
            width = max(len(layer["kind"]), *map(len, labels))
            cells = ["…" if label == "…" else layer["kind"] for label in labels]
            lines += [
                "  " + gap.join(text.center(width) for text in row).rstrip()
                for gap, row in (
                    ("   ", labels),
                    ("   ", [" " if label == "…" else "↓" for label in labels]),
                    (arrow, cells),
                )
            ]
        else:
            lines.append(f"  ↓ {title(layer)}")
        lines.append(shape_text(layer["output"]))
    return "\n".join(lines)
