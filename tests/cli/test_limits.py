"""`limits`: an operator bounds a pool and its tenants while it runs."""

from __future__ import annotations

import json

from tests.support.command import CommandLine


def test_limits_are_set_shown_obeyed_and_cleared(served: CommandLine) -> None:
    done = served.run("limits", "set", "--tenant", "acme", "--weight", "4", "--rate", "0.001", "--burst", "1")
    assert "acme" in done.out
    assert "rate 0.001/s, burst 1, weight 4" in done.out

    first = served.run("infer", "shout", "--text", "a", "--tenant", "acme")
    second = served.run("infer", "shout", "--text", "a", "--tenant", "acme")
    shown = json.loads(served.run("limits", "show", "--json").out)
    cleared = served.run("limits", "clear", "--tenant", "acme")
    third = served.run("infer", "shout", "--text", "a", "--tenant", "acme")

    assert first.code == 0
    assert second.code != 0
    assert "this tenant may send 0.001 requests a second" in second.err
    assert shown["tenants"] == {"acme": {"weight": 4, "in_flight": None, "rate": 0.001, "burst": 1}}
    assert "acme" not in cleared.out
    assert third.code == 0


def test_a_pools_limits_have_sizes_and_go_back_to_the_defaults(served: CommandLine) -> None:
    done = served.run("limits", "set", "--pool", "unserved", "--backlog", "20000", "--bytes", "2GiB", "--light", "8")
    cleared = served.run("limits", "clear", "--pool", "unserved")

    assert done.out.startswith("pool unserved: backlog 20,000, bytes 2,147,483,648\n")
    assert "light up to 8" in done.out
    assert cleared.out.startswith("pool unserved: backlog 100,000, bytes unbounded\n")


def test_a_limit_of_the_wrong_kind_says_whose_it_is(served: CommandLine) -> None:
    of_pool = served.run("limits", "set", "--tenant", "acme", "--backlog", "5")
    of_tenant = served.run("limits", "set", "--weight", "2")
    nothing = served.run("limits", "set")

    assert [done.code for done in (of_pool, of_tenant, nothing)] == [2, 2, 2]
    assert "--backlog is the pool's: leave out --tenant" in of_pool.err
    assert "--weight is one tenant's: name it by --tenant" in of_tenant.err
    assert "name at least one limit" in nothing.err
