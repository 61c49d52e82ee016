"""What was decided is known, nothing else is, and a million of them are small."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.arrival import known
from orchestrator.arrival.known import Known

SAME_HALF = st.integers(0, 3).map(lambda n: b"\xaa" * 8 + n.to_bytes(8, "big"))
PLACES_OF_HALF = [b"\xaa" * 8 + n.to_bytes(8, "big") for n in range(4)]
PLACES = st.lists(SAME_HALF | st.binary(min_size=16, max_size=16), max_size=40)


@given(added=PLACES, asked=PLACES)
def test_nothing_is_known_that_was_not_added(added: list[bytes], asked: list[bytes]) -> None:
    some = Known()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "LOOSE", 3)
        for place in added:
            some.add(place)
    for place, there in zip(asked, some.of(asked), strict=True):
        assert not there or place in added


@given(steps=st.lists(st.tuples(st.booleans(), SAME_HALF), max_size=40))
def test_what_was_forgotten_is_not_known_until_it_is_added_again(steps: list[tuple[bool, bytes]]) -> None:
    some, should = Known(), set[bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "LOOSE", 3)
        for add, place in steps:
            (some.add if add else some.forget)(place)
            (should.add if add else should.discard)(place)
            for each, there in zip(PLACES_OF_HALF, some.of(PLACES_OF_HALF), strict=True):
                assert not there or each in should


def test_what_was_added_is_known_and_small() -> None:
    places = [hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in range(100_000)]
    tracemalloc.start()
    some = Known()
    for place in places[:60_000]:
        some.add(place)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert some.of(places) == [True] * 60_000 + [False] * 40_000
    assert len(some) == 60_000
    assert size < 60_000 * 16 + known.LOOSE * 150
