"""The results page as people compare with it, in Chromium: groups, clips played together, links, copies."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from prefect_together.results.results import RowResult, TakeResult
from results_pages import CLIP, CLIP_SECONDS, LONG_CLIP, LONG_CLIP_SECONDS, Show, films, result

pytestmark = pytest.mark.browser

MODELS = ("vidu/q1", "minimax/director")
TIMES = "all => all.map(video => video.currentTime)"
STRIP_OF_ROW_2 = "article[data-row='2'] video"


def compared(
    number: int, *, models: tuple[str, ...] = MODELS, seeds: tuple[int, ...] = (7, 8), scene: str = "harbour"
) -> RowResult:
    """A row with a video for each model and seed; those of the last model are longer, and have sound."""
    takes = tuple(
        TakeResult(
            row_id=f"film-{number}--{model.partition('/')[2]}--seed-{seed}",
            status="downloaded",
            model=model,
            prompt=f"prompt of film {number}",
            parameters={"seconds": "5", "seed": seed},
            file=f"videos/{LONG_CLIP if model == models[-1] else CLIP}",
            cost_usd=0.5 if model == models[-1] else 0.25,
            estimate_usd=0.25,
            duration_seconds=LONG_CLIP_SECONDS if model == models[-1] else CLIP_SECONDS,
            has_audio=model == models[-1],
            generation_seconds=40.0,
        )
        for model in models
        for seed in seeds
    )
    return RowResult(number=number, cells={"prompt": f"prompt of film {number}", "scene": scene}, takes=takes)


def experiment(count: int = 3) -> list[RowResult]:
    return [compared(number, scene="street" if number % 2 else "harbour") for number in range(2, count + 2)]


def heads(page: Page) -> list[str]:
    return page.locator(".head .prompt").all_inner_texts()


def lefts(cards: Locator) -> list[float]:
    return cards.evaluate_all("all => all.map(card => Math.round(card.getBoundingClientRect().left))")


def times(page: Page, selector: str = STRIP_OF_ROW_2) -> list[float]:
    return page.locator(selector).evaluate_all(TIMES)


def play_all(page: Page) -> None:
    page.get_by_role("group", name="All clips of row 2").get_by_role("button", name="Play all").click()


def wait_until_all_are_past(page: Page, seconds: float, selector: str = STRIP_OF_ROW_2) -> list[float]:
    """The clips' times in the moment when all are past `seconds`."""
    found: Any = page.wait_for_function(
        """([selector, seconds]) => {
            const times = [...document.querySelectorAll(selector)].map(video => video.currentTime);
            return times.length && times.every(time => time > seconds) ? times : null;
        }""",
        arg=[selector, seconds],
    )
    return found.json_value()


def test_a_row_with_several_videos_is_a_strip_under_its_prompt_once_and_has_a_column_for_each_model(show: Show) -> None:
    page = show(experiment(), width=700 + 240)

    assert heads(page) == [f"prompt of film {number}" for number in (2, 3, 4)]
    names = page.locator(".line h3")
    assert names.all_inner_texts()[:2] == list(MODELS)
    cards = page.locator("article[data-row='2']")
    assert cards.locator(".prompt").all_inner_texts() == ["seed 7", "seed 7", "seed 8", "seed 8"]
    assert lefts(cards) == lefts(names)[:2] * 2


def test_on_a_wide_window_all_videos_of_a_row_are_side_by_side_under_their_models(show: Show) -> None:
    page = show(experiment(), width=1920)

    cards = page.locator("article[data-row='2']")
    assert cards.locator(".prompt").all_inner_texts() == ["seed 7", "seed 8", "seed 7", "seed 8"]
    assert len(set(lefts(cards))) == 4
    assert lefts(page.locator(".line h3"))[:2] == lefts(cards)[::2]
    assert page.locator("#cards").bounding_box()["width"] > 1800  # pyright: ignore[reportOptionalSubscript]


def test_a_video_that_one_model_lacks_leaves_its_place_empty(show: Show) -> None:
    row = compared(2)
    page = show([RowResult(number=2, cells=row.cells, takes=row.takes[1:])], width=760)

    cards = page.locator("article")
    assert cards.locator(".prompt").all_inner_texts() == ["seed 8", "seed 8", "seed 7"]
    assert lefts(cards) == [*lefts(page.locator(".line h3")), lefts(page.locator(".line h3"))[1]]


def test_takes_of_one_id_are_counted_and_those_of_others_are_not(show: Show) -> None:
    first = compared(2, models=MODELS[:1], seeds=(7,)).takes[0]
    second = replace(first, take=2)
    other = compared(2, models=MODELS[:1], seeds=(8,)).takes[0]
    page = show([RowResult(number=2, cells={}, takes=(first, second, other))])

    assert page.locator("article").evaluate_all("all => all.map(card => card.ariaLabel)") == [
        "Row 2, seed 7, take 1 of 2",
        "Row 2, seed 7, take 2 of 2",
        "Row 2, seed 8",
    ]
    anchors = page.locator("article").evaluate_all("all => all.map(card => card.dataset.anchor)")
    assert len(set(anchors)) == 3


def test_videos_are_grouped_by_any_column_of_the_table_or_by_model_or_not_at_all(show: Show) -> None:
    page = show([*experiment(), compared(5, scene="")])

    page.get_by_label("Group").select_option(label="By scene")
    assert heads(page) == ["scene: harbour", "scene: street", "scene: (empty)"]
    page.get_by_label("Group").select_option(label="By model")
    assert heads(page) == list(MODELS)
    page.get_by_label("Group").select_option(label="No groups")
    assert heads(page) == []
    assert page.locator("article").count() == 16


def test_a_table_of_one_video_a_row_is_a_list_as_before(show: Show) -> None:
    page = show(films(3))

    assert heads(page) == []
    expect(page.get_by_role("button", name="List")).to_have_attribute("aria-pressed", "true")


def test_one_button_plays_a_strips_clips_together_and_only_one_is_heard(show: Show) -> None:
    page = show(experiment(1), width=1920)

    play_all(page)
    together = wait_until_all_are_past(page, 1.0)

    assert len(together) == 4
    assert max(together) - min(together) < 0.3
    muted = page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.map(video => video.muted)")
    assert muted == [True, True, False, True]
    page.get_by_role("button", name="Sound of Row 2, minimax/director, seed 8").click()
    muted = page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.map(video => video.muted)")
    assert muted == [True, True, True, False]
    page.get_by_role("button", name="Pause").click()
    assert page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.every(video => video.paused && video.muted)")


def test_a_shorter_clip_keeps_its_last_picture_until_the_longest_has_ended_and_all_begin_again(show: Show) -> None:
    page = show(experiment(1), width=1920)

    play_all(page)
    wait_until_all_are_past(page, 0.5)
    page.get_by_label("Position").fill("4")
    page.wait_for_function("selector => document.querySelectorAll(selector)[3].currentTime > 4.2", arg=STRIP_OF_ROW_2)
    short, _, long, _ = times(page)
    ended = page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.map(video => video.paused)")
    page.wait_for_function(
        "selector => [...document.querySelectorAll(selector)].every(video => !video.paused && video.currentTime < 2)",
        arg=STRIP_OF_ROW_2,
    )
    again = wait_until_all_are_past(page, 0.3)

    assert CLIP_SECONDS - 0.3 < short < CLIP_SECONDS + 0.1
    assert long > 4.2
    assert ended == [True, True, False, False]
    assert max(again) - min(again) < 0.3


def test_a_strip_is_sought_while_it_stands_still_too_and_by_keyboard(show: Show) -> None:
    page = show(experiment(1), width=1920)
    page.wait_for_function(
        "selector => [...document.querySelectorAll(selector)].every(video => video.readyState > 1)", arg=STRIP_OF_ROW_2
    )

    position = page.get_by_label("Position")
    position.fill("2")
    position.press("ArrowRight")

    page.wait_for_function(
        "selector => [...document.querySelectorAll(selector)].every(video => Math.abs(video.currentTime - 2) < 0.1)",
        arg=STRIP_OF_ROW_2,
    )
    expect(position).to_have_attribute("aria-valuetext", "2.0 of 5.0 seconds")
    assert page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.every(video => video.paused)")


def test_a_strip_is_played_and_paused_by_keyboard(show: Show) -> None:
    page = show(experiment(1), width=1920)

    page.get_by_role("button", name="List").focus()
    for _ in ("Gallery", "Contact sheet", "Downloaded 4", "Play all"):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Play all")).to_be_focused()
    page.keyboard.press("Enter")
    wait_until_all_are_past(page, 0.3)
    page.keyboard.press("Space")

    expect(page.get_by_role("button", name="Play all")).to_be_focused()
    assert page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.every(video => video.paused)")


def test_a_strip_stops_when_another_or_a_single_clip_is_played(show: Show) -> None:
    page = show(experiment(2), width=1920, height=1400)

    play_all(page)
    wait_until_all_are_past(page, 0.2)
    page.get_by_role("group", name="All clips of row 3").get_by_role("button", name="Play all").click()
    wait_until_all_are_past(page, 0.2, "article[data-row='3'] video")
    assert page.locator(STRIP_OF_ROW_2).evaluate_all("all => all.every(video => video.paused)")
    page.get_by_label("Play Row 2, vidu/q1, seed 7").click()

    page.wait_for_function("() => [...document.querySelectorAll('video')].filter(video => !video.paused).length === 1")
    expect(page.get_by_role("button", name="Play all")).to_have_count(2)


class _Quiet(SimpleHTTPRequestHandler):
    """Sends no parts of a file, as many simple servers do."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http_address(directory: Path) -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_clips_play_together_over_http_from_a_server_that_cannot_seek(
    show: Show, browser: Browser, http_address: str
) -> None:
    show(experiment(1))
    page = browser.new_page(viewport={"width": 1920, "height": 900})
    page.goto(http_address)

    play_all(page)
    together = wait_until_all_are_past(page, 1.0)
    page.get_by_label("Position").fill("2.5")
    later = wait_until_all_are_past(page, 1.5)
    page.close()

    assert max(together) - min(together) < 0.3
    assert max(later) - min(later) < 0.3


def test_what_is_shown_is_kept_in_the_address_and_survives_a_reload(show: Show) -> None:
    page = show(experiment(4))

    page.get_by_label("Group").select_option(label="By scene")
    page.get_by_role("button", name="Contact sheet").click()
    page.get_by_label("Model", exact=True).select_option(MODELS[1])
    page.get_by_label("Sort by").select_option("cost")
    page.get_by_role("button", name="Descending").click()
    page.get_by_role("button", name="Downloaded 16").click()
    page.get_by_role("searchbox").fill("film & 3")
    expect(page.locator("#shown")).to_have_text("0 of 16 videos")
    page.get_by_role("searchbox").fill("film seed 3")
    expect(page.locator("#shown")).to_have_text("2 of 16 videos")
    page.wait_for_function("() => location.hash.includes('query=film+seed+3')")
    page.reload()

    expect(page.locator("#shown")).to_have_text("2 of 16 videos")
    assert heads(page) == ["scene: street"]
    expect(page.get_by_role("searchbox")).to_have_value("film seed 3")
    expect(page.get_by_label("Model", exact=True)).to_have_value(MODELS[1])
    expect(page.get_by_label("Sort by")).to_have_value("cost")
    for name in ("Contact sheet", "Descending", "Downloaded 16"):
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("() => !location.hash.includes('query')")


@pytest.mark.parametrize(
    "address", ["#by=toString&layout=x&status=__proto__,&sort=constructor", "#%E0%A4%A", "#video=no"]
)
def test_an_address_that_names_nothing_shows_the_usual_page(show: Show, address: str) -> None:
    page = show(experiment(2), address=address)

    assert heads(page) == ["prompt of film 2", "prompt of film 3"]
    expect(page.locator("#shown")).to_have_text("8 videos")


@pytest.mark.parametrize("view", ["", "by=none&layout=list&", "by=column%3Ascene&layout=sheet&"])
def test_the_link_of_a_card_leads_to_it_and_marks_it(show: Show, view: str) -> None:
    page = show(experiment(400), address=f"#{view}video=film-390--q1--seed-8")

    marked = page.locator("article[aria-current='true']")
    expect(marked).to_have_count(1)
    expect(marked).to_be_in_viewport(ratio=1)
    expect(marked).to_have_attribute("aria-label", "Row 390, vidu/q1, seed 8")
    expect(marked.locator(".open")).to_be_focused()
    page.wait_for_function("() => document.querySelector('.marked video')?.readyState > 1")


def test_the_link_on_a_card_puts_its_address_into_the_window(show: Show) -> None:
    page = show(experiment(2), width=1920)

    page.get_by_role("link", name="Link to Row 3, vidu/q1, seed 8").click()

    assert page.evaluate("location.hash") == "#video=film-3--q1--seed-8"
    expect(page.locator("article[aria-current='true']")).to_have_attribute("aria-label", "Row 3, vidu/q1, seed 8")
    page.get_by_role("link", name="Link to Row 2, vidu/q1, seed 7").click()
    expect(page.locator("article[aria-current='true']")).to_have_attribute("aria-label", "Row 2, vidu/q1, seed 7")
    page.go_back()
    expect(page.locator("article[aria-current='true']")).to_have_attribute("aria-label", "Row 3, vidu/q1, seed 8")


def test_a_link_to_a_video_that_its_own_filters_hide_shows_all(show: Show) -> None:
    page = show(experiment(2), address="#query=film+3&video=film-2--q1--seed-7")

    expect(page.locator("article[aria-current='true']")).to_be_in_viewport()
    expect(page.locator("#shown")).to_have_text("8 videos")


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_a_prompt_is_copied_even_where_the_browser_offers_no_clipboard(show: Show, has_clipboard: bool) -> None:
    prompt = "  a fox,\n\t“red”  🦊 "
    page = show([result(2, prompt=prompt), result(3)])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    read: Any = "navigator.clipboard.readText()"
    if not has_clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        read = """new Promise(done => addEventListener('paste', event => {
            event.preventDefault();
            done(event.clipboardData.getData('text'));
        }))"""

    page.get_by_role("button", name="Copy the prompt of Row 2").click()
    expect(page.locator("#said")).to_have_text("Prompt copied")
    assert _pasted(page, read, has_clipboard) == prompt
    page.get_by_role("button", name="prompt of film 3").click()
    page.get_by_role("dialog").get_by_role("button", name="Copy prompt").click()
    expect(page.locator("#said-in-dialog")).to_have_text("Prompt copied")
    expect(page.get_by_role("dialog").get_by_role("button", name="Copy prompt")).to_be_focused()
    page.keyboard.press("Escape")
    assert _pasted(page, read, has_clipboard) == "prompt of film 3"


def _pasted(page: Page, read: str, has_clipboard: bool) -> str:
    if has_clipboard:
        return page.evaluate(read)
    page.evaluate(f"() => {{ window.pasted = {read}; }}")
    page.get_by_role("searchbox").focus()
    page.keyboard.press("Control+v")
    return page.evaluate("window.pasted")


def test_models_are_compared_by_downloads_failures_dollars_time_and_drift(show: Show) -> None:
    failed = result(5, "failed", model=MODELS[0], error="moderated", row_id="other")
    page = show([*experiment(), failed], width=1920)

    rows = page.get_by_role("table").get_by_role("row")
    texts = [row.get_by_role("cell").all_inner_texts() for row in rows.all()[1:]]
    assert rows.first.get_by_role("columnheader").all_inner_texts() == [
        *("Model", "Downloaded", "Failed", "Dollars a clip", "Time to generate", "Charged", "Drift"),
    ]
    assert rows.locator("th[scope=row]").all_inner_texts() == ["minimax/director", "vidu/q1"]
    assert texts == [
        ["6 of 6", "0", "$0.50", "40 s", "$3.00", "+100.0 %"],
        ["6 of 7", "1", "$0.25", "40 s", "$1.50", "none"],
    ]
    widths = page.locator("td[data-name='Dollars a clip'] .share").evaluate_all(
        "all => all.map(bar => Number(bar.style.getPropertyValue('--share')))"
    )
    assert widths == [1.0, 0.5]


def test_a_contact_sheet_shows_many_small_stills_in_a_line(show: Show) -> None:
    page = show(experiment(10), width=1366, address="#by=none&layout=sheet")

    stills = page.locator("article")
    assert len(set(lefts(stills))) >= 8
    page.wait_for_function(
        """() => [...document.querySelectorAll("article video")].filter(v => v.readyState > 1).length > 20"""
    )
    page.get_by_label("Play Row 2, vidu/q1, seed 7").click()
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize(
    "view", ["", "layout=sheet", "by=none&layout=list", "by=column%3Ascene", "by=none&layout=sheet"]
)
@pytest.mark.parametrize("models", [MODELS, tuple(f"company-{n}/a-model-of-a-long-name-{n}" for n in range(12))])
def test_on_a_phone_nothing_scrolls_sideways(show: Show, view: str, models: tuple[str, ...]) -> None:
    rows = [compared(number, models=models) for number in (2, 3)]

    page = show(rows, width=390, height=844, address=f"#{view}")

    assert page.evaluate("document.scrollingElement.scrollWidth") == 390
    sides = page.locator("article, h3, .run, .position, table, td").evaluate_all(
        "all => all.map(part => part.getBoundingClientRect()).flatMap(box => [box.left, box.right])"
    )
    assert min(sides) >= 0
    assert max(sides) <= 390
    expect(page.locator("article .clip").first).to_be_attached()


def test_many_models_stand_each_under_its_name(show: Show) -> None:
    models = tuple(f"company/model-{n}" for n in range(12))
    page = show([compared(2, models=models)], width=1280)

    assert page.locator(".line h3").all_inner_texts() == list(models)
    assert page.locator("article").evaluate_all("all => all.map(card => card.video.model)") == [
        model for model in models for _ in (7, 8)
    ]


@pytest.mark.parametrize("view", ["", "by=column%3Ascene&layout=sheet", "by=none&layout=list"])
def test_of_ten_thousand_grouped_videos_only_those_near_the_window_are_in_the_document(show: Show, view: str) -> None:
    page = show(experiment(2500), width=1920, address=f"#{view}")
    page.wait_for_selector("article[data-row='2']")

    first = page.locator("article").count()
    page.keyboard.press("End")
    page.wait_for_selector("article[data-row='2501']")

    expect(page.locator("article[data-row='2501']").last).to_be_in_viewport()
    assert first < 300
    assert page.locator("article").count() < 300
    took_ms = page.evaluate(
        "() => { const begin = performance.now(); showChosen(); return performance.now() - begin; }"
    )
    assert took_ms < 3000


def test_switching_the_layout_keeps_the_video_at_the_top_in_view(show: Show) -> None:
    page = show(experiment(400), address="#video=film-200--q1--seed-7")

    page.get_by_role("button", name="Contact sheet").click()

    expect(page.locator("article[data-row='200']").first).to_be_in_viewport()


def test_a_playing_strip_also_plays_what_scrolls_into_view(show: Show) -> None:
    page = show([compared(2, models=MODELS, seeds=tuple(range(60)))], width=1280, address="#by=model&layout=gallery")

    page.get_by_role("button", name="Play all").first.click()
    page.wait_for_function("() => document.querySelector('.synced video')?.currentTime > 0.5")
    page.mouse.wheel(0, 1200)
    page.wait_for_function(
        """() => [...document.querySelectorAll("article")].filter(card => {
            const box = card.getBoundingClientRect(), video = card.querySelector("video");
            return box.bottom > 200 && box.top < innerHeight && card.strip === playing && !video.paused;
        }).length >= 8"""
    )

    together = page.locator(".synced video").evaluate_all("all => all.filter(v => !v.paused).map(v => v.currentTime)")
    assert max(together) - min(together) < 0.3
