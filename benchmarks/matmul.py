"""Measure the machine's peak: GFLOP/s of a 4096×4096 float32 matrix product in NumPy.

    python benchmarks/matmul.py

Prints a JSON object with `gflops` and `blas`, the kind of processor for which OpenBLAS multiplies.
It may be an older kind than this machine's: `OPENBLAS_CORETYPE` sets it.
"""

import json
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_info

SIDE = 4096

a = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
a @ a  # warm up
seconds = []
for _ in range(5):
    started = time.perf_counter()
    a @ a
    seconds.append(time.perf_counter() - started)
gflops = 2 * SIDE**3 / statistics.median(seconds) / 1e9
blas = next((each["architecture"] for each in threadpool_info() if "architecture" in each), "")
print(json.dumps({"gflops": gflops, "blas": blas}))
