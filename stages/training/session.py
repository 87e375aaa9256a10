"""Train one model, from thread setting to scores.

The pipeline, the studies and the benchmarks all train through `train_model`, so equal settings give
equal results everywhere.
"""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.arrays import Arrays
from stages.common.cli import StageError
from stages.common.params import UNDO, Convolutional, Model, Params, Train
from stages.common.versions import versions
from stages.training.checkpoints import FOLDER, Checkpoint
from stages.training.runtime import Threads, choose_threads, configure, probe

if TYPE_CHECKING:
    import keras

Row = dict[str, float]


@dataclass
class Training:
    """A finished training.

    `history` has one row per epoch (see `loop.fit`). `resumed` counts how often it was resumed.
    """

    model: keras.Sequential
    history: list[Row]
    threads: Threads
    examples: int
    resumed: int = 0
    checkpoint: Checkpoint | None = None

    def score(self, data: Arrays) -> dict[str, float]:
        """Return accuracy and loss of the trained model on `data`."""
        from stages.models.shared.inference import score

        return score(self.model, data, workers=self.threads.inter_op)

    def timing(self) -> dict[str, Any]:
        """Return the cost of the training, and the machine.

        Returns
        -------
        dict
            ``train_seconds``: wall time of all epochs, with validation and the first epoch's graph
            building, without imports. ``seconds_per_epoch``: median. ``examples_per_second``.
            ``peak_memory_bytes``: largest resident set of the process. ``resumed``: how often the
            training was resumed; each epoch counts once, as timed by the process that finished it.
            Then the keys of `machine`, and the date.
        """
        seconds = [row["seconds"] for row in self.history]
        per_epoch = statistics.median(seconds)
        return {
            "train_seconds": round(sum(seconds), 3),
            "seconds_per_epoch": round(per_epoch, 3),
            "examples_per_second": round(self.examples / per_epoch, 1),
            "peak_memory_bytes": peak_memory(),
            "resumed": self.resumed,
            **machine(self.threads),
            "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        }


def train_model(
    name: str,
    params: Params,
    train_data: Arrays,
    val_data: Arrays,
    num_classes: int,
    *,
    checkpoint_facts: dict[str, Any] | None = None,
    on_epoch: Callable[[Sequence[Row]], None] = lambda _: None,
    log: Callable[[str], None] = print,
) -> Training:
    """Train the model `name` with `params`; set up threads, seeds and precision first.

    TensorFlow fixes its threads once per process, so call this once per process.

    Parameters
    ----------
    checkpoint_facts
        Facts that identify the data. If given, the training saves a checkpoint after each epoch,
        and continues from one if it exists. The caller removes it after saving the results.
    on_epoch
        Called with the history so far, after each epoch and after a resume.
    log
        Called with a line of text at the start and after each epoch.

    Raises
    ------
    StageError
        The images are too small for the model or the shift, the model file could not be loaded
        again, or the training diverges.
    """
    section = params.models[name]
    train = params.train.own(section)
    height, width = train_data.x.shape[-3:-1]
    if section.shift >= min(height, width):
        raise StageError(
            f"params.yaml: {name}.shift is {section.shift} pixels, which moves the whole "
            f"{height}×{width} image out of view; {UNDO}"
        )
    threads = threads_for(train, section, len(train_data.y))
    configure(threads, params.seed, params.train.precision)
    from stages.models import build
    from stages.training.loop import fit

    model = build(name, train_data.x.shape[1:], num_classes, section)
    log(
        f"{name}: {model.count_params():,} parameters, {len(train_data.y):,} training and "
        f"{len(val_data.y):,} validation images, {params.epochs} epochs"
    )
    training = Training(model, [], threads, len(train_data.y))
    done = None
    if checkpoint_facts is not None:
        facts = checkpoint_facts | {
            "epochs": params.epochs,
            "seed": params.seed,
            "train": params.train.model_dump(),
            "section": section.model_dump(),
            "machine": machine(threads),
        }
        training.checkpoint = Checkpoint(name, facts)
        done = training.checkpoint.load()
    if done:
        done.resumed += 1
        training.resumed = done.resumed
        training.history += done.rows
        on_epoch(training.history)
        log(f"{name}: continuing after epoch {len(done.rows)} of {params.epochs}, from {FOLDER}")
    try:
        for row in fit(
            model,
            train_data,
            val_data,
            epochs=params.epochs,
            seed=params.seed,
            train=train,
            section=section,
            batch_parts=threads.batch_parts,
            progress=done,
            keep=training.checkpoint.save if training.checkpoint else None,
        ):
            training.history.append(row)
            on_epoch(training.history)
            log(progress_line(name, training.history, params.epochs))
    except StageError:  # it diverges: the last checkpoint is of no use
        if training.checkpoint:
            training.checkpoint.remove()
        raise
    return training


def threads_for(train: Train, section: Model, images: int) -> Threads:
    """Return the thread setting for a training on `images` images."""
    batch_norm = isinstance(section, Convolutional) and section.batch_norm
    last_batch = images % train.batch_size or train.batch_size
    return choose_threads(train.threads, train.batch_size, batch_norm, last_batch)


def progress_line(name: str, history: Sequence[Row], epochs: int) -> str:
    """Return one line with the last epoch's metrics and the estimated time left."""
    row = history[-1]
    later = history[1:] or history  # the first epoch also builds the graph
    left = (epochs - row["epoch"]) * statistics.median(past["seconds"] for past in later)
    return (
        f"{name:6} epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
        f"  accuracy {100 * row['accuracy']:5.2f} %, validation {100 * row['val_accuracy']:5.2f} %"
        f"  loss {row['loss']:.4f}, validation {row['val_loss']:.4f}"
        f"  rate {row['learning_rate']:.1e}  {row['seconds']:.1f} s, about {left:.0f} s left"
    )


def peak_memory() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts ru_maxrss in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(threads: Threads) -> dict[str, Any]:
    """Return what training's bytes depend on besides data, code and parameters, and the processor.

    ``threads``, ``versions``, ``probe`` (see `runtime.probe`), ``processor`` (its name).
    """
    return {
        "threads": threads.as_dict(),
        "versions": versions(),
        "probe": probe(),
        "processor": processor(),
    }


def processor() -> str:
    """Return the processor's name and model number. The name alone is ambiguous in clouds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
        return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()  # not Linux, or not x86
