"""Everything that is special to the backend: threads, determinism, seeds, quiet logs.

Call `configure` before anything else imports Keras. TensorFlow is the backend that is tested;
another one, chosen with `KERAS_BACKEND`, gets the seeds and keeps its own threads.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import joblib

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

PREFETCH = 4  # batches made ready while the model works
OPTIONAL = ("matplotlib", "sklearn")  # what Keras imports where it is there, and no model needs
MIN_PART = 64  # examples; smaller parts of a batch cost more in calls than they gain


@dataclass(frozen=True)
class Threads:
    """How a training uses the processor.

    `intra_op` threads share one operation, `inter_op` operations run side by side, and each batch
    runs through the model in `batch_parts` parallel parts.
    """

    intra_op: int
    inter_op: int
    batch_parts: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def choose_threads(threads: int, batch_size: int, batch_norm: bool) -> Threads:
    """Return the thread setting for `threads` cores (0: all that this process may use).

    Most products in these models are too small to share among threads: one thread an operation,
    and the batch in parallel parts, is faster (benchmarks/README.md has the figures). A model that
    normalizes batches does so within each part, so there the number of parts does not follow the
    machine: it would change what is computed.
    """
    cores = threads or joblib.cpu_count()  # heeds affinity and containers' limits
    most = max(1, batch_size // MIN_PART)
    parts = min(most, 2 if batch_norm else max(2, cores))
    return Threads(intra_op=max(1, cores // parts), inter_op=cores, batch_parts=parts)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Import the backend without its start-up notices, which no setting turns off, and faster.

    The import makes millions of objects that stay: looking for garbage among them, then and
    ever after, would take a quarter of its time; what is `OPTIONAL` another quarter.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: an import of it fails
    gc.disable()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            del sys.modules[name]
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


def feed(batches: keras.utils.PyDataset) -> keras.utils.PyDataset | tf.data.Dataset:
    """Return `batches`, each epoch's in the order of its index, as the backend reads them fastest.

    Keras would wrap them in a `tf.data` pipeline with autotuning. When such a pipeline ends, its
    destructor waits for the tuner, which sleeps for twice as long each time: an epoch of 6 s then
    takes 10.2 s, one of 12 s takes 20.5 s. There is nothing to tune in a pipeline of one step.
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
