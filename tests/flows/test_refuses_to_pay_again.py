"""A run stops with exit code 2, and sends nothing, where paid work would be paid for again without the user's word."""

from __future__ import annotations

import pytest

from prefect_together.cli.run_flow import run_command_line
from prefect_together.ledger.ledger import LEDGER_FILE
from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import Limits, Locations
from table_of_prompts import MODEL, Harness, paid_calls, prompts, table_text

CAT, HARBOUR = "A cat asleep on a drum", "A harbour at dawn"
TABLE = prompts(CAT, HARBOUR)
WITHOUT_IDS = table_text([{"prompt": CAT}, {"prompt": HARBOUR}])


def lose_the_ledger(harness: Harness) -> None:
    for path in harness.output_dir.glob(f"{LEDGER_FILE}*"):
        path.unlink()


def exit_code(harness: Harness, *words: str) -> int:
    with harness.prefect.used():
        return run_command_line("generate_videos", [*words, "--output-dir", str(harness.output_dir), "--model", MODEL])


def test_a_lost_ledger_stops_the_run_before_anything_is_sent(harness: Harness) -> None:
    harness.run(TABLE)
    before = paid_calls(harness)
    lose_the_ledger(harness)

    ended = harness.run(TABLE)

    assert ended.state.is_failed()
    assert isinstance(ended.result, SettingsInvalid)
    assert "2 rows of" in str(ended.result)
    assert "($0.56 paid) have jobs that the ledger" in str(ended.result)
    assert paid_calls(harness) == before
    assert ended.statuses == ["downloaded", "downloaded"]  # results.csv still proves what was paid for


def test_another_ledger_that_knows_other_work_stops_the_run_too(harness: Harness) -> None:
    harness.run(TABLE)
    before = paid_calls(harness)
    lose_the_ledger(harness)
    harness.learn_durations()

    ended = harness.run(TABLE)

    assert isinstance(ended.result, SettingsInvalid)
    assert paid_calls(harness) == before


def test_new_ledger_pays_again_because_the_user_says_so(harness: Harness) -> None:
    harness.run(TABLE)
    lose_the_ledger(harness)
    harness.learn_durations()

    ended = harness.run(TABLE, locations=Locations(new_ledger=True))

    assert ended.statuses == ["downloaded", "downloaded"]
    assert [harness.api.accepted(prompt) for prompt in (CAT, HARBOUR)] == [2, 2]


def test_rows_that_lost_their_ids_stop_the_run_before_anything_is_sent(harness: Harness) -> None:
    harness.run(TABLE)
    before = paid_calls(harness)

    ended = harness.run(WITHOUT_IDS)

    assert ended.state.is_failed()
    assert isinstance(ended.result, SettingsInvalid)
    assert "2 videos would be paid for again, up to $0.56" in str(ended.result)
    assert paid_calls(harness) == before


def test_rebuy_pays_again_because_the_user_says_so(harness: Harness) -> None:
    harness.run(TABLE)

    ended = harness.run(WITHOUT_IDS, limits=Limits(rebuy=True))

    assert ended.statuses == ["downloaded", "downloaded"]
    assert [harness.api.accepted(prompt) for prompt in (CAT, HARBOUR)] == [2, 2]


@pytest.mark.parametrize("option", ["new_ledger", "rebuy"])
def test_neither_option_is_the_other(harness: Harness, option: str) -> None:
    harness.run(TABLE)
    before = paid_calls(harness)

    if option == "rebuy":
        lose_the_ledger(harness)
        ended = harness.run(TABLE, limits=Limits(rebuy=True))
    else:
        ended = harness.run(WITHOUT_IDS, locations=Locations(new_ledger=True))

    assert isinstance(ended.result, SettingsInvalid)
    assert paid_calls(harness) == before


def test_the_command_line_names_the_option_and_exits_with_2(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(harness, TABLE) == 0
    before = paid_calls(harness)
    capsys.readouterr()

    assert exit_code(harness, WITHOUT_IDS) == 2
    assert "--rebuy" in capsys.readouterr().err
    lose_the_ledger(harness)
    assert exit_code(harness, TABLE) == 2
    assert "--new-ledger" in capsys.readouterr().err
    assert paid_calls(harness) == before
