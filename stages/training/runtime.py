"""Set up the backend: threads, determinism, seeds, precision, quiet logs, data feeding.

Call `configure` before anything else imports Keras. TensorFlow is the tested backend. With another
one, chosen by `KERAS_BACKEND`, only seeds and precision are set.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import joblib
import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

PREFETCH = 4  # batches prepared while the model computes
# Keras imports these if they are installed. Models do not need them.
OPTIONAL = ("matplotlib", "pandas", "scipy", "sklearn")
# A program that copies its input, without what TensorFlow logs at its start.
WITHOUT_NOTICES = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog", line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""
MIN_PART = 64  # examples; smaller parts of a batch cost more time in calls than they save


@dataclass(frozen=True)
class Threads:
    """How a training uses the processor.

    `intra_op` threads share one operation, `inter_op` operations run at the same time, and each
    batch is split into `batch_parts` parts that run through the model in parallel.
    """

    intra_op: int
    inter_op: int
    batch_parts: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def choose_threads(
    threads: int, batch_size: int, batch_norm: bool, last_batch: int | None = None
) -> Threads:
    """Return the thread setting for `threads` cores (0: all that this process may use).

    Most matrix products in these models are too small to share among threads. One thread per
    operation, with the batch split into parallel parts, is faster (see benchmarks/README.md). With
    batch norm, statistics are computed per part, so the number of parts is fixed: results must not
    depend on the number of cores. Batches are not split if the last one, of `last_batch` examples,
    has fewer examples than parts: an empty part has no batch statistics.
    """
    cores = threads or joblib.cpu_count()  # respects affinity and container limits
    most = max(1, batch_size // MIN_PART)
    parts = min(most, 2 if batch_norm else max(2, cores))
    if last_batch is not None and last_batch < parts:
        parts = 1
    return Threads(intra_op=max(1, cores // parts), inter_op=cores, batch_parts=parts)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Import the backend faster, and without start-up notices that no setting turns off.

    Disabling garbage collection saves about 25 % of the import time; hiding the `OPTIONAL`
    packages saves another 35 %. A filter drops the notices from stderr; everything else, such as
    the reason of a crash in native code, passes. Ctrl-C prints to the real stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept, python_stderr = os.fdopen(os.dup(2), "w"), sys.__stderr__
    sys.__stderr__ = kept  # for the Ctrl-C handler
    faulthandler.enable(kept)
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None makes the import fail
    gc.disable()
    notices = subprocess.Popen(  # noqa: S603 -- no shell
        [sys.executable, "-I", "-S", "-c", WITHOUT_NOTICES],
        stdin=subprocess.PIPE, stdout=kept, start_new_session=True,  # Ctrl-C does not reach it
    )  # fmt: skip
    os.dup2(notices.stdin.fileno(), 2)
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            del sys.modules[name]
        os.dup2(kept.fileno(), 2)
        notices.communicate()
        sys.__stderr__ = python_stderr
        faulthandler.enable(sys.__stderr__)
        kept.close()


def configure(threads: Threads, seed: int, precision: str = "float32") -> None:
    """Import Keras and set threads, deterministic operations, seeds and precision.

    Parameters
    ----------
    precision
        A Keras dtype policy, ``float32`` or ``mixed_bfloat16``.
    """
    with _quiet_import():
        import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # it warns about a smaller last batch
        tf.config.threading.set_intra_op_parallelism_threads(threads.intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(threads.inter_op)
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)


@functools.cache
def probe() -> str:
    """Return a digest of how this machine rounds: that of the weights after a tiny training.

    Processors of one name can differ in their instructions, and settings such as
    ``ONEDNN_MAX_CPU_ISA`` change them. Where probe, threads and library versions are equal,
    trainings should give equal bytes. "" for backends other than TensorFlow. Call `configure`
    first; takes about 0.1 s.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return ""
    import tensorflow as tf

    random = np.random.default_rng(0)

    def normal(*shape: int) -> tf.Variable:
        return tf.Variable(random.standard_normal(shape, dtype=np.float32) / 10)

    images, labels = normal(64, 28, 28, 1), tf.constant(random.integers(0, 10, 64))
    weights = [normal(3, 3, 1, 32), normal(3, 3, 32, 64), normal(1600, 128), normal(128, 10)]
    for _ in range(2):
        with tf.GradientTape() as tape:
            x = tf.nn.max_pool2d(tf.nn.conv2d(images, weights[0], 1, "VALID"), 2, 2, "VALID")
            x = tf.nn.max_pool2d(tf.nn.conv2d(tf.nn.relu(x), weights[1], 1, "VALID"), 2, 2, "VALID")
            x = tf.sigmoid(tf.tanh(tf.reshape(x, (64, 1600)) @ weights[2])) @ weights[3]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(gradient)
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest()[:16]


def feed(batches: keras.utils.PyDataset) -> keras.utils.PyDataset | tf.data.Dataset:
    """Return `batches`, in order, in the form that the backend reads fastest.

    Keras would wrap them in a `tf.data` pipeline with autotuning. At the end of an epoch, that
    pipeline waits for its tuning thread, which sleeps longer and longer: an epoch of 6 s took
    10.2 s, one of 12 s took 20.5 s. A pipeline of one step has nothing to tune.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), batches[0]
    )
    return (
        tf.data.Dataset.from_generator(
            lambda: (batches[step] for step in range(len(batches))), output_signature=signature
        )
        .apply(tf.data.experimental.assert_cardinality(len(batches)))
        .prefetch(PREFETCH)
        .with_options(options)
    )
