"""A Ray cluster on this machine, whose nodes come and go: ``python ray_cluster.py CPUS``, in a process of its own.

It writes the address, and then takes lines, each of which it answers: ``add CPUS`` begins a node, ``lose`` kills the
one that was added last. It ends with standard input.
"""

from __future__ import annotations

import sys

STORE = 80 * 2**20


def main(cpus: int) -> None:
    from ray.cluster_utils import Cluster

    answers, sys.stdout = sys.stdout, sys.stderr  # Ray prints too

    def say(text: str) -> None:
        print(text, file=answers, flush=True)

    def sized(count: int) -> dict[str, object]:
        return {"num_cpus": count, "object_store_memory": STORE}

    # Nodes that are killed are missed sooner than a cluster of machines should miss them.
    system = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(
        initialize_head=True, head_node_args={**sized(cpus), "include_dashboard": False, "_system_config": system}
    )
    added = []
    say(cluster.address)
    for line in sys.stdin:
        match line.split():
            case ["add", count]:
                added.append(cluster.add_node(**sized(int(count))))
            case ["lose"]:
                cluster.remove_node(added.pop(), allow_graceful=False)
        say(line.strip())
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
