"""What a service says on its way in: the key is redacted, in every form, and nothing steers a terminal."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_together.api.foreign_text import REDACTED, ForeignText, escaped

KEY = "tgp_v1_aB3/+x9zQwErTyUi=="
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60)


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Bearer {KEY}",
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        in_base64(KEY),
        in_base64(f"Bearer {KEY}"),
        in_base64(f"u:{KEY}!"),
        base64.urlsafe_b64encode(f"user:{KEY}".encode()).decode(),
    ],
)
def test_the_key_is_redacted_in_every_form(text: str) -> None:
    cleaned = ForeignText(KEY).clean(f"you sent {text}, which is wrong")

    assert REDACTED in cleaned
    assert KEY not in cleaned
    assert text not in cleaned


@given(KEYS, st.binary(max_size=7), st.binary(max_size=7))
def test_the_key_is_redacted_wherever_in_a_base64_text_it_stands(key: str, before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + key.encode() + after).decode()

    assert REDACTED in ForeignText(key).clean(text)


@given(st.text(max_size=80))
def test_no_text_keeps_a_line_end_or_a_control_character(text: str) -> None:
    cleaned = ForeignText().clean(text)

    assert "\n" not in cleaned
    assert escaped(cleaned) == cleaned
    cleaned.encode()


def test_letters_and_emoji_of_all_scripts_stay() -> None:
    text = "Über café 影片 🎬 👩‍🚀 नमस्ते"

    assert ForeignText(KEY).clean(text) == text
