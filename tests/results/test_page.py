"""The results page as text: what is in it, and what cannot get out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from typing import Any

import pytest

from prefect_together.errors import FailureClass
from prefect_together.ledger.states import Status
from prefect_together.results.outputs import MAX_TEXT_CHARACTERS, PageSummary, clip_source, results_page
from prefect_together.results.results import RowResult, TakeResult

HOSTILE = "</script><script>alert(1)</script><!--<script>\u2028\u2029]]>\"'&lt;\ud800<img src=x onerror=alert(1)>"


def take(status: Status = "downloaded", **fields: object) -> TakeResult:
    values: dict[str, object] = {"row_id": "a", "status": status, "model": "m", "parameters": {}}
    return TakeResult(**(values | fields))  # pyright: ignore[reportArgumentType]


def row(*takes: TakeResult, **cells: str) -> RowResult:
    return RowResult(number=2, cells=cells, takes=takes or (take(),))


class Elements(HTMLParser):
    """The page's elements as a browser would see them: tags with their attributes, and the texts of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def content(page: str) -> dict[str, Any]:
    return json.loads(Elements(page).texts["script"][0])


def policy(page: str) -> dict[str, list[str]]:
    tags = [attrs for tag, attrs in Elements(page).tags if tag == "meta" and "http-equiv" in attrs]
    directives = [directive.split() for directive in (tags[0]["content"] or "").split(";")]
    return {words[0]: words[1:] for words in directives}


def test_hostile_text_stays_inside_the_data() -> None:
    failed = take("failed", row_id=HOSTILE, prompt=HOSTILE, model=HOSTILE, error=HOSTILE, job_id=HOSTILE)
    parameters = {HOSTILE: HOSTILE, "list": [HOSTILE]}
    hostile = take(prompt=HOSTILE, parameters=parameters, file="videos/a.mp4", sha256=HOSTILE)
    summary = PageSummary(table=HOSTILE, written_at=HOSTILE, warnings=(HOSTILE,))

    page = results_page([row(failed, hostile, **{HOSTILE: HOSTILE})], title=HOSTILE, summary=summary)

    plain = results_page([], title="plain")
    assert [tag for tag, _ in Elements(page).tags] == [tag for tag, _ in Elements(plain).tags]
    assert content(page)["videos"][0]["prompt"] == HOSTILE
    assert content(page)["title"] == HOSTILE
    assert Elements(page).texts["title"] == [HOSTILE.replace("\ud800", "?")]
    page.encode()  # no lone surrogate is left


def test_a_placeholder_in_the_users_text_is_only_text() -> None:
    page = results_page([row(take(prompt="@@TITLE@@ @@POLICY@@"))], title="@@DATA@@")

    assert Elements(page).texts["title"] == ["@@DATA@@"]
    assert content(page)["videos"][0]["prompt"] == "@@TITLE@@ @@POLICY@@"


def test_the_policy_allows_the_pages_own_script_and_style_and_no_other() -> None:
    page = results_page([row()], title="t")

    script, style = Elements(page).texts["script"][1], Elements(page).texts["style"][0]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (script, style)
    ]
    assert policy(page)["default-src"] == ["'none'"]
    assert policy(page)["script-src"] == hashes[:1]
    assert policy(page)["style-src"] == hashes[1:]


def test_only_a_page_with_remote_clips_may_reach_the_network() -> None:
    local = results_page([row(take(file="videos/a.mp4"))], title="t")
    remote = results_page([row(take(file_url="https://bucket.example/a.mp4"))], title="t")

    assert policy(local)["media-src"] == ["'self'", "file:"]
    assert policy(remote)["media-src"] == ["'self'", "file:", "https:"]
    links = [attrs[name] for _, attrs in Elements(local).tags for name in ("src", "href") if name in attrs]
    assert links == ["data:,"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("videos/a.mp4", "videos/a.mp4"),
        ("videos/a b#1?50%&é.mp4", "videos/a%20b%231%3F50%25%26%C3%A9.mp4"),
        ("videos/🦊.mp4", "videos/%F0%9F%A6%8A.mp4"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("videos/c:\\d.mp4", "videos/c%3A%5Cd.mp4"),
        ("/etc/passwd", None),
        ("//host/a.mp4", None),
        ("videos/../../a.mp4", None),
        ("videos/./a.mp4", None),
        ("", None),
    ],
)
def test_a_clip_is_linked_only_below_the_page(file: str, source: str | None) -> None:
    assert clip_source(take(file=file)) == source


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "http://host/a.mp4", "s3://b/a.mp4", "//h/a"]
)
def test_a_remote_clip_is_linked_by_https_only(url: str) -> None:
    assert clip_source(take(file_url=url)) is None
    assert clip_source(take(file_url="https://host/a.mp4")) == "https://host/a.mp4"


def test_a_clip_that_is_not_downloaded_is_not_linked() -> None:
    assert clip_source(take("submitted", file="videos/a.mp4")) is None


def test_a_reason_counts_the_rows_that_have_their_status_for_it() -> None:
    refused = take("refused", failure_class=FailureClass.BUDGET)
    rows = [
        RowResult(number=number, cells={}, takes=takes)
        for number, takes in enumerate(((refused,), (take("planned"), refused), (take(),)))
    ]

    reasons = content(results_page(rows, title="t"))["reasons"]

    assert {reason: said["rows"] for reason, said in reasons.items()} == {
        "budget": {"refused": 1},
        "planned": {"planned": 1},
    }
    assert "Raise `--budget-usd`" in reasons["budget"]["note"]


def test_own_columns_are_shown_that_are_not_shown_as_parameters() -> None:
    done = take(prompt="a fox", parameters={"seconds": "6", "audio": True, "media": {"frame_images": ["first.png"]}})

    data = content(results_page([row(done, id="a", prompt="a fox", seconds="6", mood="calm")], title="t"))

    assert data["columns"] == ["mood"]
    assert data["videos"][0]["cells"] == ["calm"]
    assert data["parameters"] == [
        [["seconds", "6"], ["audio", "yes"], ["media", '{"frame_images": ["first.png"]}']],
    ]


def test_numbers_that_json_does_not_know_are_left_out() -> None:
    nothing = float("nan")

    data = content(results_page([row(take(cost_usd=nothing, duration_seconds=float("inf")))], title="t"))

    assert not {"costUsd", "seconds"} & set(data["videos"][0])


def test_huge_texts_are_cut_and_say_so() -> None:
    data = content(results_page([row(take(prompt="x" * 1_000_000), notes="y" * 1_000_000)], title="t"))

    prompt, cell = data["videos"][0]["prompt"], data["videos"][0]["cells"][0]
    assert len(prompt) < MAX_TEXT_CHARACTERS + 100
    assert prompt.endswith("(1,000,000 characters, cut here)")
    assert len(cell) == len(prompt)
