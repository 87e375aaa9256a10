"""Everything that is special to the backend: threads, determinism, seeds, quiet logs.

Call `configure` before anything else imports Keras. TensorFlow is the backend that is tested;
another one, chosen with `KERAS_BACKEND`, gets the seeds and keeps its own threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib

MIN_PART = 64  # examples; smaller parts of a batch cost more in calls than they gain


@dataclass(frozen=True)
class Threads:
    """How a training uses the processor.

    `intra_op` threads share one operation, `inter_op` operations run side by side, and the LSTM
    layers run each batch in `batch_parts` parallel parts.
    """

    intra_op: int
    inter_op: int
    batch_parts: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def choose_threads(threads: int, recurrent: bool, batch_size: int) -> Threads:
    """Return the thread setting for `threads` cores (0: all that this process may use).

    The products in an LSTM's time steps are too small to share among threads: a recurrent model
    is faster with one thread an operation and the batch in as many parallel parts as there are
    threads (benchmarks/README.md has the figures). Convolutions are shared among the threads.
    """
    cores = threads or joblib.cpu_count()  # heeds affinity and containers' limits
    if not recurrent:
        return Threads(intra_op=cores, inter_op=cores, batch_parts=1)
    parts = max(1, min(cores, batch_size // MIN_PART))
    return Threads(intra_op=max(1, cores // parts), inter_op=cores, batch_parts=parts)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep TensorFlow's start-up notices, which no setting turns off, off the screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def configure(threads: Threads, seed: int, precision: str = "float32") -> None:
    """Start the backend with a thread setting, seeds and numeric precision.

    Parameters
    ----------
    precision
        A Keras dtype policy, ``float32`` or ``mixed_bfloat16``.
    """
    with _quiet_import():
        import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # a last, smaller batch is no reason for a warning
        tf.config.threading.set_intra_op_parallelism_threads(threads.intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(threads.inter_op)
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
