"""The processor's own limit: the rate of a 4096² float32 matrix product in NumPy, GFLOP/s.

Run it as ``python benchmarks/matmul.py``; it prints a JSON object.
"""

import json
import statistics
import time

import numpy as np

SIDE = 4096

a = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
a @ a  # warms up
seconds = []
for _ in range(5):
    started = time.perf_counter()
    a @ a
    seconds.append(time.perf_counter() - started)
print(json.dumps({"gflops": 2 * SIDE**3 / statistics.median(seconds) / 1e9}))
