"""A Ray cluster of two nodes with one CPU each on this machine: prints its address; a line removes the second node."""

import sys

import ray
from ray.cluster_utils import Cluster


def main() -> None:
    settings = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**settings, "temp_dir": sys.argv[1]})
    second = cluster.add_node(**settings)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("removed", flush=True)
        sys.stdin.readline()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
