"""Films on the results page, in Chromium: they stand first and play, and a chapter goes to its shot."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from prefect_together.films.films import Film, FilmShot, MissingShot
from results_pages import Show, films, result, wait_until_playing, write_clip

pytestmark = pytest.mark.browser

FILM, FILM_SECONDS = "films/Harbour & 50% #1.mp4", 5.0
WAITING = (MissingShot(4, "night", 1, "in_doubt"),)


@pytest.fixture
def film(directory: Path) -> Film:
    path = directory / FILM
    path.parent.mkdir(exist_ok=True)
    write_clip(path, FILM_SECONDS)
    shots = (FilmShot("k2", "dawn", 0.0, 2.0), FilmShot("k3", "boats", 2.0, 1.5), FilmShot("k4", "gulls", 3.5, 1.5))
    return Film("Harbour", FILM, FILM_SECONDS, shots)


def rows() -> list[object]:
    long = "gulls over the quay, " * 20
    return [
        result(2, key="k2", prompt="dawn"),
        result(3, key="k3", prompt="two boats"),
        result(4, key="k4", prompt=long),
    ]


def test_a_film_stands_first_and_a_chapter_plays_from_its_shot(show: Show, film: Film) -> None:
    page = show(rows(), films=(film,))

    chapters = page.locator(".films .chapter")
    assert page.locator("main > *").first.get_attribute("id") == "films"
    assert chapters.all_inner_texts()[:2] == ["0:00\ndawn", "0:02\ntwo boats"]
    assert chapters.nth(2).inner_text().startswith("0:03\ngulls over the quay")
    assert chapters.nth(2).inner_text().endswith("…")

    chapters.nth(1).click()

    wait_until_playing(page, ".film video")
    time = page.locator(".film video").evaluate("video => video.currentTime")
    assert 2.0 <= time < 3.5
    expect(chapters.nth(1)).to_have_attribute("aria-current", "true")
    assert page.locator(".film video").get_attribute("src", timeout=1000) == f"{quote(FILM)}#t=0.001"

    page.get_by_label("Play Row 2").click()
    wait_until_playing(page, ".card video")
    assert page.locator(".film video").evaluate("video => video.paused")


def test_the_chapter_that_plays_takes_as_much_room_as_before(show: Show, film: Film) -> None:
    prompts = ("Wide shot of a small fishing harbour before sunrise", "The mist lifts", "The open sea at noon " * 4)
    rows = [result(number, key=f"k{number}", prompt=prompt) for number, prompt in enumerate(prompts, start=2)]
    page = show(rows, films=(film,), width=1100)
    chapters = page.locator(".films .chapter")
    before = chapters.evaluate_all("all => all.map(one => one.offsetHeight)")

    for chapter in chapters.all():
        chapter.click()
        expect(chapter).to_have_attribute("aria-current", "true")
        assert chapters.evaluate_all("all => all.map(one => one.offsetHeight)") == before


def test_a_film_that_waits_says_for_what(show: Show, film: Film) -> None:
    old = Film(film.name, film.file, film.seconds, film.shots, WAITING)
    never = Film("<b>Night</b>", None, None, (), WAITING)

    page = show(rows(), films=(old, never))

    expect(page.locator(".film").nth(0)).to_contain_text(
        "An earlier cut; the new one waits for row 4 (night): in doubt"
    )
    expect(page.locator(".film").nth(1).locator("h2")).to_have_text("<b>Night</b>")
    expect(page.locator(".film").nth(1)).to_contain_text("not made yet")
    assert page.locator(".film video").count() == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_with_films_is_never_wider_than_its_window(show: Show, film: Film, width: int) -> None:
    wide = Film("W" * 200, film.file, film.seconds, film.shots, WAITING)

    page = show(rows(), films=(film, wide), width=width)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".film video").first.bounding_box()
    assert box is not None
    assert box["width"] >= (300 if width == 390 else 500)


def test_a_page_without_films_has_no_room_for_them(show: Show) -> None:
    page = show(films(1))

    expect(page.locator("#films")).to_be_hidden()
