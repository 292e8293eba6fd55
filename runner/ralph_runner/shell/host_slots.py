"""The machines of `--hosts` under one runner: made from the options, and told as state.json has them.

Held by the ticket loop's effects, shared by its pis. Nothing is kept on disk but what is told.
"""

import time

from ralph_rpc.clock import iso, now_ms
from ralph_rpc.launchers.hosts import Hosts, parse_hosts
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import HostState


def hosts_of(config: Config) -> Hosts | None:
    """None where there are none."""
    slots = parse_hosts(config.get("hosts", ()))
    return Hosts(slots) if slots else None


def told_hosts(hosts: Hosts) -> list[HostState]:
    """As state.json has them."""
    found: list[HostState] = []
    for host in hosts.told():
        one: HostState = {"host": host.name, "slots": host.slots, "taken": host.taken}
        left = host.rested_until - time.monotonic()
        if left > 0:
            one["restedUntil"] = iso(now_ms() + int(left * 1000))
            one["reason"] = host.reason
        found.append(one)
    return found
