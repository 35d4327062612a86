"""The results page in Chromium, opened from disk: clips play, the list answers, hostile text does nothing."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, Error, expect

from prefect_together.errors import AccountBlocked, BudgetReached, CanaryFailed, FailureClass, JobFailed
from prefect_together.ledger.states import Status
from prefect_together.results.outputs import results_page
from prefect_together.results.results import RowResult
from results_pages import CLIP, Show, films, prompts, result, wait_until_playing

pytestmark = pytest.mark.browser

STATUSES: tuple[Status, ...] = ("downloaded", "failed", "in_doubt", "refused", "submitted", "planned")
JOB_ID = "5f0e0a8c-3b8a-4bb0-9a53-8a5d4a0c3f21"
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_clip_plays_from_disk_whatever_its_name(show: Show) -> None:
    page = show(films(3))

    page.locator(".card .clip").first.hover()

    wait_until_playing(page, ".card video")


def test_a_card_shows_its_still_until_the_clip_is_there(show: Show) -> None:
    still = replace(result(1).takes[0], file="stills/boat #1.jpg", cost_usd=0.014)
    page = show([replace(result(1, "planned"), still=still), replace(result(2), still=still)])
    stills = Path(url2pathname(urlsplit(page.url).path)).parent / "stills"
    stills.mkdir()
    Image.new("RGB", (64, 36), "red").save(stills / "boat #1.jpg")
    page.reload()

    pictures = page.locator(".card img.still")
    expect(pictures).to_have_count(1)
    page.wait_for_function("document.querySelector('.card img.still').naturalWidth === 64")
    assert pictures.get_attribute("alt") == "The still that Row 1 begins with"
    with Image.open(BytesIO(pictures.screenshot())) as seen:
        red, green, blue = ImageStat.Stat(seen.convert("RGB")).mean  # nothing lies over it but a word
    assert red > 200 > 60 > max(green, blue)


def test_a_click_plays_the_clip_with_native_controls_and_sound_and_only_that_one(show: Show) -> None:
    page = show(films(3))

    page.get_by_label("Play Row 2").click()
    wait_until_playing(page, ".card[data-row='2'] video")
    page.get_by_label("Play Row 3").click()
    wait_until_playing(page, ".card[data-row='3'] video")

    states = page.locator(".card video").evaluate_all("all => all.map(v => [v.paused, v.controls, v.muted])")
    assert states == [[True, True, False], [False, True, False], [True, False, True]]


def test_a_clip_is_played_by_keyboard_too(show: Show) -> None:
    page = show(films(1))

    page.get_by_label("Play Row 2").focus()
    page.keyboard.press("Enter")

    wait_until_playing(page, ".card video")


def test_clips_are_loaded_when_looked_at_and_let_go_afterwards(show: Show) -> None:
    page = show(films(1000))
    page.wait_for_selector(".card[data-row='2'] video[src]")

    first_screen = page.locator("video[src]").count()
    page.keyboard.press("End")
    page.wait_for_selector(".card[data-row='1001'] video[src]")

    assert first_screen < 10
    assert page.locator("video[src]").count() < 10
    assert page.locator(".card").count() < 30


def test_a_clip_that_is_not_beside_the_page_is_said_to_be_missing(show: Show) -> None:
    page = show([result(2, file="videos/gone.mp4")])

    expect(page.locator(".card .blank")).to_contain_text("Clip not found")
    expect(page.locator(".card .blank")).to_contain_text("videos/gone.mp4")


def test_videos_are_found_by_status_model_and_words(show: Show) -> None:
    rows = [result(2), result(3, "failed", error="content policy"), result(4, "in_doubt", model="model/two")]
    page = show([*rows, result(5, "failed", prompt="a red fox", model="model/two")])

    page.get_by_role("button", name="Failed 2").click()
    assert prompts(page) == ["prompt of film 3", "a red fox"]
    page.get_by_label("Model", exact=True).select_option("model/two")
    assert prompts(page) == ["a red fox"]
    page.get_by_role("button", name="Show all").click()
    assert len(prompts(page)) == 4
    page.get_by_role("searchbox").fill("POLICY film")
    expect(page.locator("#shown")).to_have_text("1 of 4 videos")
    assert prompts(page) == ["prompt of film 3"]
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator("#empty")).to_contain_text("No video matches")


@pytest.mark.parametrize(
    ("key", "rising", "falling"),
    [
        ("row", [2, 3, 4], [4, 3, 2]),
        ("cost", [4, 2, 3], [2, 4, 3]),
        ("duration", [2, 4, 3], [4, 2, 3]),
        ("generation", [4, 2, 3], [2, 4, 3]),
        ("status", [3, 2, 4], [2, 4, 3]),
        ("model", [4, 2, 3], [3, 2, 4]),
    ],
)
def test_videos_are_sorted_with_what_is_unknown_last(
    show: Show, key: str, rising: list[int], falling: list[int]
) -> None:
    page = show(
        [
            result(2, model="b", cost_usd=0.5, duration_seconds=3.0, generation_seconds=90.0),
            result(3, "failed", model="c"),
            result(4, model="A", cost_usd=0.1, duration_seconds=8.0, generation_seconds=60.0),
        ]
    )
    numbers = "all => all.map(card => Number(card.dataset.row))"

    page.get_by_label("Sort by").select_option(key)
    assert page.locator(".card").evaluate_all(numbers) == rising
    page.get_by_role("button", name="Descending").click()
    assert page.locator(".card").evaluate_all(numbers) == falling


def test_everything_about_one_video_is_a_key_press_away(show: Show) -> None:
    page = show([result(2, job_id="job-2", sha256="abc"), result(3, "failed", error="no\nclip"), result(4)])

    page.locator(".open").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    wait_until_playing(page, "dialog video")
    for text in ("prompt of film 2", "job-2", "abc", "calm", "$0.28", "model/one", CLIP):
        expect(dialog).to_contain_text(text)
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("Row 3 · film-3")
    expect(dialog).to_contain_text("--retry-failed")
    page.keyboard.press("Escape")

    expect(dialog).to_be_hidden()
    expect(page.locator(".card[data-row='3'] .open")).to_be_focused()


def test_hostile_text_is_shown_and_does_nothing(show: Show) -> None:
    rows = [
        result(
            2, "failed", prompt=HOSTILE, row_id=HOSTILE, model=HOSTILE, error=HOSTILE, parameters={HOSTILE: HOSTILE}
        ),
        result(3, prompt=HOSTILE, file="javascript:document.title='owned'", file_url="javascript:alert(1)"),
    ]
    page = show([*rows, result(4)], table=HOSTILE, warnings=(HOSTILE,))

    page.locator(".open").first.click()

    assert page.get_by_role("dialog").locator(".whole").inner_text() == HOSTILE
    assert page.title() == "films"
    assert page.locator("img").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0


def test_the_policy_refuses_any_other_script_and_any_request(browser: Browser, directory: Path) -> None:
    file = directory / "policy.html"
    file.write_text(results_page(films(1), title="films"), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())

    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x>'")
    refused = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.violatedDirective));
            const image = new Image();
            image.src = "https://example.invalid/x.png";
        })"""
    )

    page.close()
    assert refused == "img-src"


def test_states_are_counted_priced_and_explained(show: Show) -> None:
    rows = [result(number, status, job_id="j") for number, status in enumerate(STATUSES, start=2)]

    page = show(rows, is_sandbox=True, is_running=True, budget_usd=10.0)

    totals = page.get_by_role("region", name="Totals")
    for text in ("1 of 6 rows", "$0.28", "of a budget of $10.00", "$1.68", "--resubmit-in-doubt", "See the error"):
        expect(totals).to_contain_text(text)
    expect(totals).to_contain_text("billed as estimated")
    expect(page.locator("#about")).to_contain_text("sandbox")
    expect(page.locator("#about")).to_contain_text("run in progress")
    for label in ("Downloaded", "Failed", "In doubt", "Refused", "Submitted", "Planned"):
        expect(page.get_by_role("button", name=f"{label} 1")).to_be_visible()


def test_refused_rows_have_each_their_own_reason_and_what_to_do(show: Show) -> None:
    errors = (
        BudgetReached(1.0, 0.9, 0.28),
        CanaryFailed("model/one", "film-1", "moderated"),
        AccountBlocked(402, None, "no credits"),
        BudgetReached(1.0, 0.9, 0.28),
    )

    page = show(
        [
            result(number, "refused", error=str(error), failure_class=error.failure_class)
            for number, error in enumerate(errors, start=2)
        ]
    )

    assert page.locator(".card .error").all_inner_texts() == [str(error) for error in errors]
    notes = page.locator("#notes li").all_inner_texts()
    assert [note.split("\n")[0] for note in notes] == ["2 rows refused", "1 row refused", "1 row refused"]
    assert "Raise --budget-usd" in notes[0]
    assert "without --canary" in notes[1]
    assert "the credits on together.ai" in notes[2]
    page.get_by_role("button", name="prompt of film 3").click()
    expect(page.locator(".problem")).to_contain_text("without --canary")
    expect(page.locator(".problem")).not_to_contain_text("--budget-usd")


def test_a_table_without_rows_says_so(show: Show) -> None:
    page = show([])

    expect(page.locator("#empty")).to_contain_text("No rows")
    expect(page.get_by_role("searchbox")).to_be_hidden()


def test_a_shared_job_is_named_and_not_priced_twice(show: Show) -> None:
    first = result(2)
    page = show([first, RowResult(number=3, cells={}, takes=first.takes, shared_with=2)])

    card = page.locator(".card[data-row='3']")
    expect(card).to_contain_text("same job as row 2")
    expect(card.locator(".cost")).to_have_text("shared")
    expect(page.locator("#shown")).to_have_text("2 videos, 1 shared with an identical row")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (768, False), (360, True)])
def test_nothing_sticks_out_at_any_width_and_theme(show: Show, width: int, dark: bool) -> None:
    long = "unbroken" * 200
    rows = [result(9, "failed", prompt=long, error=long, model=long, row_id=long), *films(5)]

    page = show(rows, width=width, dark=dark)

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heights = page.locator(".card").evaluate_all("all => all.map(card => Math.round(card.offsetHeight))")
    assert len(set(heights)) == 1
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, background[4:-1].split(","))) < 64) is dark


@pytest.mark.parametrize("width", [320, 390, 600, 820, 1024, 1440])
def test_a_run_with_every_status_fits_the_window_and_so_does_its_dialog(show: Show, width: int) -> None:
    error = str(JobFailed(JOB_ID, "content_policy", "The prompt was refused.", FailureClass.MODERATION))
    rows = [result(number, status, error=error, job_id=JOB_ID) for number, status in enumerate(STATUSES * 12, start=2)]

    page = show(rows, width=width, is_sandbox=True, is_running=True, budget_usd=20.0)

    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    right_edges = page.locator(".chip").evaluate_all("all => all.map(chip => chip.getBoundingClientRect().right)")
    assert len(right_edges) == len(STATUSES)
    assert max(right_edges) <= width
    page.locator(".card .open").nth(1).click()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.locator("#one-body").evaluate("body => body.scrollWidth <= body.clientWidth")
    expect(page.get_by_role("button", name="Close")).to_be_in_viewport(ratio=1)


def test_a_failure_begins_with_its_reason_and_ends_with_the_job(show: Show) -> None:
    error = str(JobFailed(JOB_ID, "content_policy", "The prompt was refused.", FailureClass.MODERATION))
    page = show([result(2, "failed", error=error)])

    assert page.locator(".card .error").inner_text() == (
        f"content_policy: The prompt was refused. (moderation, job {JOB_ID})"
    )


def test_rows_and_videos_are_counted_each_by_name_where_they_differ(show: Show) -> None:
    one, two, failed = result(2), result(3), result(4, "failed")
    page = show([RowResult(number=2, cells={}, takes=(*one.takes, *two.takes)), failed])

    figure = page.locator("#figures > div").first
    assert figure.locator("dd").all_inner_texts() == ["1 of 2 rows", "50 % · 2 of 3 videos"]
    assert page.locator("#notes b").all_inner_texts() == ["1 row failed"]
    expect(page.get_by_role("button", name="Downloaded 2")).to_have_attribute("title", "2 videos")
    expect(page.locator("#shown")).to_have_text("3 videos")


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_of_a_long_table_only_what_is_near_the_window_is_in_the_document(show: Show, count: int) -> None:
    rows = [*films(count - 1), result(count + 1, prompt="the needle")]

    page = show(rows)
    page.wait_for_selector(".card")
    cards = page.locator(".card").count()
    page.evaluate("""() => choose({ query: "needle" })""")

    assert cards < 200
    assert prompts(page) == ["the needle"]
