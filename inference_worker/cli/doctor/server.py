"""Checks of the Redis server, by what its INFO says and how fast it answers. Pure: whoever asks it is the command."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.embedded import OLDEST
from common.errors import ConfigError
from common.memory import Level, read_memory
from inference_worker.cli.doctor.finding import Finding, error, note, warning, well
from inference_worker.devices.memory import show_bytes
from inference_worker.supervision.server import check_version, warnings

#: A round trip beyond this costs each quiet request as much as its model does.
SLOW_MS = 2.0
#: One in a hundred beyond this is a server that stands still now and then.
STALLED_MS = 50.0
#: Clocks that differ by more make log lines and traces of several hosts unreadable.
CLOCK_MS = 1000
#: From this share of the connections on, the next host may be let in no more.
CLIENTS = 0.8
#: Without a limit of its own it is the host's memory that ends: from this share on that is near.
HOST_MEMORY = 0.8

Info = Mapping[str, Any]


def version(info: Info) -> Finding:
    found = info.get("redis_version", "?")
    try:
        check_version(info)
    except ConfigError as wrong:
        oldest = ".".join(map(str, OLDEST))
        return error("redis version", wrong.message, "workers refuse to start", f"install Redis {oldest} or newer")
    return well("redis version", f"{found}, {info.get('redis_mode', 'standalone')}")


def role(info: Info) -> Finding:
    if info.get("role", "master") == "master":
        return well("redis role", f"master with {info.get('connected_slaves', 0)} replicas")
    return error(
        "redis role",
        "this is a replica",
        "it refuses every request",
        "name the master, or all Sentinels: redis+sentinel://HOST,HOST/SERVICE",
    )


def persistence(info: Info) -> Finding:
    check = "redis persistence"
    if int(info.get("aof_enabled", 0)):
        if info.get("aof_last_write_status", "ok") != "ok":
            return error(
                check, "its append-only file cannot be written", "it refuses requests", "make room on its disk"
            )
        return well(check, "append-only file")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return error(
            check, "its last snapshot failed", "it may refuse requests", "look at its log; make room on its disk"
        )
    return warning(
        check,
        "no append-only file",
        "if it restarts, all requests and results since its last snapshot are gone, and what operators have set",
        "appendonly yes and appendfsync everysec, as in deploy/redis",
    )


def eviction(info: Info) -> Finding:
    check, policy = "redis eviction", info.get("maxmemory_policy", "noeviction")
    for text in warnings(info):
        return error(check, f"maxmemory-policy {policy}", text, "maxmemory-policy noeviction")
    if not int(info.get("maxmemory", 0)):
        return warning(
            check,
            "no maxmemory",
            "a flood of large requests takes all memory of its host, and the system kills it",
            "set maxmemory to three quarters of its host's memory, and maxmemory-policy noeviction",
        )
    return well(check, f"maxmemory-policy {policy}")


def memory(info: Info) -> Finding:
    check, found = "redis memory", read_memory(info)
    if found.level is not Level.ROOM:
        make = error if found.level is Level.FULL else warning
        return make(
            check,
            str(found),
            "clients are refused until there is room",
            "raise maxmemory, or bound what waits: `inference-worker limits set --bytes`",
        )
    total = int(info.get("total_system_memory", 0))
    if total and found.used > HOST_MEMORY * total:
        return warning(
            check,
            f"{show_bytes(found.used)} of its host's {show_bytes(total)}",
            "with what a snapshot takes besides, the system may kill it",
            "give it a host with more memory, or bound what waits: `inference-worker limits set --bytes`",
        )
    return well(check, str(found) if found.limit else f"{show_bytes(found.used)}, without a limit")


def clients(info: Info) -> Finding:
    check, there, most = "redis clients", int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and there > CLIENTS * most:
        return warning(
            check,
            f"{there} of {most} connections",
            "the next worker or client may not be let in",
            "raise maxclients, and the file limit of its process",
        )
    return well(check, f"{there} of {most or '?'} connections")


def latency(samples_ms: Sequence[float]) -> Finding:
    """Of PINGs, one after the other, from this host."""
    check, ordered = "redis latency", sorted(samples_ms)
    median, worst = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    what = f"{median:.2f} ms, 99 of 100 within {worst:.2f} ms, by {len(ordered)} PINGs"
    if median > SLOW_MS:
        return warning(
            check,
            what,
            "each request takes two round trips more than its model does",
            "run workers and clients in the same network as Redis",
        )
    if worst > STALLED_MS:
        return warning(
            check,
            what,
            "it stands still now and then, and everything with it",
            "look at SLOWLOG GET and LATENCY DOCTOR; give it a core of its own; turn transparent huge pages off",
        )
    return well(check, what)


def clock(redis_ms: int, before_s: float, after_s: float) -> Finding:
    """Redis's TIME, asked for between two looks at this host's clock."""
    check = "clock"
    off_ms = redis_ms - (before_s + after_s) / 2 * 1000
    uncertain_ms = (after_s - before_s) / 2 * 1000
    if abs(off_ms) - uncertain_ms > CLOCK_MS:
        ahead = "behind" if off_ms > 0 else "ahead of"
        return warning(
            check,
            f"this host is {abs(off_ms) / 1000:.1f} s {ahead} Redis",
            "no deadline depends on it, but log lines and traces of several hosts cannot be put in order",
            "run chrony or systemd-timesyncd on both",
        )
    return well(check, f"within {max(abs(off_ms), uncertain_ms):.0f} ms of Redis's")


def rights(user: str, refused: Sequence[str]) -> Finding:
    """What an operator's commands need and `user` was refused."""
    check = "redis rights"
    if refused:
        return note(
            check,
            f"user '{user}' may not use {', '.join(refused)}",
            "what needs these was not looked at, and operators' commands may fail",
            "ask as the user 'operator' of deploy/redis/users.acl, or as an administrator",
        )
    return well(check, f"user '{user}'")
