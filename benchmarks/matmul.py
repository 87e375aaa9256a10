"""Measure the machine's peak: GFLOP/s of a 4096×4096 float32 matrix product in NumPy.

    python benchmarks/matmul.py

Prints a JSON object.
"""

import json
import statistics
import time

import numpy as np

SIDE = 4096

a = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
a @ a  # warm up
seconds = []
for _ in range(5):
    started = time.perf_counter()
    a @ a
    seconds.append(time.perf_counter() - started)
print(json.dumps({"gflops": 2 * SIDE**3 / statistics.median(seconds) / 1e9}))
