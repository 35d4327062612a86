"""SIGKILL at any moment loses no paid video and buys none twice; `make soak` does the same for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from kill_harness import harass

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]


def test_forty_kills_over_a_hundred_rows_lose_nothing_and_buy_nothing_twice(tmp_path: Path) -> None:
    figures = harass(rows=100, kills=40, most_per_table=20, folder=tmp_path, seed=3)

    print("\n".join(figures.lines()))
    assert figures.wrong == []
    assert figures.doubles == 0
    assert figures.killed == 40
    assert figures.downloaded == figures.clips_checked > 0
    assert figures.downloaded + figures.in_doubt + figures.refused == figures.rows
    assert figures.billed_usd <= figures.committed_usd <= figures.budget_usd


def test_twenty_kills_over_chained_rows_keep_their_order_and_buy_nothing_twice(tmp_path: Path) -> None:
    figures = harass(rows=30, kills=20, most_per_table=20, folder=tmp_path, seed=5, chain=3)

    print("\n".join(figures.lines()))
    assert figures.wrong == []
    assert figures.doubles == 0
    assert figures.downloaded == figures.clips_checked > 0
    assert figures.downloaded + figures.in_doubt + figures.refused + figures.waiting == figures.rows


def test_twenty_kills_over_chains_that_begin_with_stills_make_no_picture_twice(tmp_path: Path) -> None:
    figures = harass(rows=30, kills=20, most_per_table=20, folder=tmp_path, seed=7, chain=3, stills=True)

    print("\n".join(figures.lines()))
    assert figures.wrong == []
    assert figures.doubles == 0
    assert figures.downloaded + figures.in_doubt + figures.refused + figures.waiting == figures.rows
    assert figures.stills == figures.rows // 3
    assert figures.pictures == figures.stills_downloaded + figures.stills_lost + figures.stills_in_doubt_made > 0
