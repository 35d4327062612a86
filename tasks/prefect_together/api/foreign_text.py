"""The one door for text that a service sends: the API key is redacted, control characters are escaped.

Everything that a service says (ids, statuses, messages, bodies) passes here before it can reach a log, a table, the
ledger or a terminal.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from urllib.parse import quote, quote_plus

REDACTED = "[key]"
SHORTEST_KEY = 8
"""Characters; no service has shorter keys, and a test's "key" would be redacted out of ordinary words."""
LONGEST_ID = 200
_INVISIBLE = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Bidi marks and overrides, line and paragraph separators, the byte order mark: they change what a line looks like."""
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cs"})


class ForeignText:
    """Cleans the texts of a service that is called with one key."""

    def __init__(self, key: str = "") -> None:
        forms = _forms_of(key) if len(key) >= SHORTEST_KEY else ()
        self._key = re.compile("|".join(map(re.escape, forms)), re.IGNORECASE) if forms else None

    def clean(self, text: object, limit: int = 300) -> str:
        """One line of at most `limit` characters: blanks and line ends become single spaces, other controls escapes."""
        line = " ".join(str(text).split())
        if self._key is not None:
            line = self._key.sub(REDACTED, line)
        return escaped(line)[:limit]

    def job_id(self, value: object) -> str | None:
        """`value` if it can be a job's id; None for what is blank, over-long, or would not survive `clean`."""
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or " " in value:
            return None
        return value if self.clean(value) == value else None


def escaped(text: str) -> str:
    """`text` with control characters, bidi overrides and halves of characters as `\\x1b`, `\\u202e`, `\\ud800`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if char in _INVISIBLE or unicodedata.category(char) in _ESCAPED_CATEGORIES
        else char
        for char in text
    )


def _forms_of(key: str) -> tuple[str, ...]:
    """The key as it is, URL-encoded, and in base64 wherever in the encoded text it begins."""
    forms = {key, quote(key, safe=""), quote_plus(key)}
    content = key.encode(errors="replace")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + content).decode()
        # The first and last characters also depend on what stands beside the key.
        end = len(encoded) if (before + len(content)) % 3 == 0 else -4 + (before + len(content)) % 3
        inner = encoded[(0, 2, 3)[before] : end]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return tuple(sorted(forms, key=len, reverse=True))
