"""A Ray cluster of two nodes with one CPU each on this machine: prints its address; a line removes the second node."""

import sys

import ray
from ray.cluster_utils import Cluster

JOINED_WITHIN = 120
"""Seconds for both nodes; on a busy machine they take far longer than on an idle one."""


def main() -> None:
    settings = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster()
    cluster.add_node(wait=False, **settings)
    second = cluster.add_node(wait=False, **settings)
    cluster.wait_for_nodes(JOINED_WITHIN)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("removed", flush=True)
        sys.stdin.readline()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
