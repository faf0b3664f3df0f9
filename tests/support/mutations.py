"""Bytes that were something once: what a broken disk, a cut connection or an attacker makes of a message."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """One of the samples with some bytes changed, inserted, removed or repeated, or its end cut off."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        until = at + draw(st.integers(1, 8))
        change = draw(st.sampled_from(["change", "insert", "remove", "repeat", "cut"]))
        if change == "change":
            data[at:until] = draw(st.binary(min_size=until - at, max_size=until - at))
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif change == "repeat":
            data[at:at] = data[at : at + 32]
        elif change == "cut" and draw(st.booleans()):
            del data[at:]
        else:
            del data[at:until]
    return bytes(data)
