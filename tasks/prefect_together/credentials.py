"""The block that holds the API key: the only form in which Prefect nowhere stores it in clear text.

Prefect's server imports this module at its start, to know the block's type: the SDK is imported where it is used.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, ClassVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from together import AsyncTogether


class TogetherCredentials(Block):
    """Together AI's API key, and the address of the service if it is not the public one.

    Flows and tasks take the *name* of a saved block (`credentials_block`), never the key: Prefect stores the
    parameters of a run in clear text. `prefect-together credentials team-video` makes one from TOGETHER_API_KEY.

    Example:
        Save a block once, then use it by its name:
        ```python
        from prefect_together import TogetherCredentials, VideoRequest, create_video

        TogetherCredentials(api_key="...").save("team-video")

        request = VideoRequest(model="minimax/video-01-director", prompt="A paper boat in heavy rain")
        job = await create_video(request, credentials_block="team-video")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Together Credentials"
    _block_type_slug: ClassVar[str | None] = "together-credentials"
    _logo_url: ClassVar[str | None] = "https://www.together.ai/favicon.ico"  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]
    _documentation_url: ClassVar[str | None] = "https://docs.together.ai/docs/videos-overview"  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]

    api_key: SecretStr = Field(title="API key", description="The key, as at api.together.ai/settings/api-keys.")
    base_url: str | None = Field(
        default=None,
        title="Base URL",
        description="Another address of the service, without /v1 at its end. Empty: https://api.together.ai.",
    )

    def open_client(self, *, max_connections: int = 100) -> AbstractAsyncContextManager[AsyncTogether]:
        """The SDK's client with this key, closed on leaving the context.

        Raises NotConfigured on entering it if the base URL ends in /v1.
        """
        from prefect_together.api.client import open_client

        return open_client(
            api_key=self.api_key.get_secret_value(),
            base_url=self.base_url or None,
            max_connections=max_connections,
        )
