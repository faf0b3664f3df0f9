"""How full Redis is, and when to say so."""

from __future__ import annotations

import pytest

from common.memory import Fullness, Level, Memory, read_memory

MB = 1_000_000


@pytest.mark.parametrize(
    ("used", "level", "text"),
    [
        (12, Level.ROOM, "12 of 200 MB"),
        (198, Level.NEARLY_FULL, "198 of 200 MB: nearly full, new requests may be refused"),
        (200, Level.FULL, "200 of 200 MB: full, new requests are refused"),
    ],
)
def test_a_redis_with_a_limit_is_full_at_the_limit(used: int, level: Level, text: str) -> None:
    memory = Memory(used * MB, 200 * MB)

    assert (memory.level, str(memory)) == (level, text)


def test_gigabytes_are_told_as_such() -> None:
    assert str(Memory(12_000 * MB, 64_000 * MB)) == "12 of 64 GB"


def test_what_replicas_are_still_to_get_fills_nothing() -> None:
    info = {"used_memory": 230, "mem_not_counted_for_evict": 50, "maxmemory": 200, "maxmemory_policy": "noeviction"}

    assert read_memory(info) == Memory(180, 200)


@pytest.mark.parametrize("info", [{"maxmemory": 0}, {"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}])
def test_a_redis_without_a_limit_or_one_that_evicts_refuses_nothing(info: dict[str, object]) -> None:
    assert read_memory({"used_memory": 200, **info}).level is Level.ROOM


def test_each_level_is_said_once_until_there_is_room_again() -> None:
    fullness = Fullness()

    said = [fullness.worse(Memory(used, 100)) for used in (50, 96, 97, 100, 96, 100)]

    assert said == [False, True, False, True, False, False]


def test_room_is_said_once_and_only_after_it_was_full() -> None:
    fullness = Fullness()

    assert not fullness.over(Memory(50, 100))
    assert fullness.worse(Memory(100, 100))
    # Just below the limit it may be full again at once.
    assert [fullness.over(Memory(used, 100)) for used in (94, 89, 89)] == [False, True, False]
    assert fullness.worse(Memory(100, 100))
