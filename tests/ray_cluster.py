"""Start a Ray cluster of N nodes with one core each, on the loopback address.

    python tests/ray_cluster.py N

Prints the address for RAY_ADDRESS. For a line "kill" on standard input it kills one node, with all
that runs there; for "replace" it then adds another one. It answers "done", and stops at the end of
the input.
"""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 96 * 2**20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    others = [cluster.add_node(**NODE) for _ in range(int(sys.argv[1]) - 1)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    while order := sys.stdin.readline().strip():
        cluster.remove_node(others.pop(0), allow_graceful=False)
        if order == "replace":
            others.append(cluster.add_node(**NODE))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
