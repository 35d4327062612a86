"""What makes two pieces of work the same. No I/O, no Prefect."""

from __future__ import annotations

import uuid


def video_key(row_id: str, take: int, fingerprint: str) -> str:
    """The identity of one video, 32 hex digits: the same row with another request is other work beside the first."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{fingerprint}/{take}/{row_id}").hex
