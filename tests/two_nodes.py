"""A Ray cluster of two nodes with a processor each, on the loopback address, for the tests.

    python tests/two_nodes.py

Prints the address for RAY_ADDRESS; at the first line on standard input it kills the second node
with all that runs there, and says so; at the end of the input it ends.
"""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 96 * 2**20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
