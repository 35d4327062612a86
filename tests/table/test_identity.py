"""The identity of a video: it must never change, or what is in people's ledgers is bought again."""

from __future__ import annotations

from itertools import product

from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import video_key


def test_the_key_is_the_one_that_ledgers_hold() -> None:
    assert video_key("cat-7", 1, "ab" * 32) == "3e9d410453ac5db2acaf4e8d19d7d664"


def test_the_fingerprint_is_the_one_that_ledgers_hold() -> None:
    request = VideoRequest(model="minimax/video-01-director", prompt="a cat", seconds="6")

    assert request.fingerprint() == "5f9434aa6f13700d5c0c701c4e28012b78fa30e7d9e9202bdf8a9a960f84c21f"


def test_row_take_and_request_each_make_other_work() -> None:
    keys = [
        video_key(row, take, fingerprint)
        for row, take, fingerprint in product(("cat", "CAT", "2/cat"), (1, 2, 12), ("ab", "abc", "cd"))
    ]

    assert len(set(keys)) == len(keys)
