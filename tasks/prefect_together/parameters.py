"""The parameters that a run sets for all rows that do not set them themselves. A form's card in the UI, options in the
shell. No I/O, no Prefect."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class VideoParameters(BaseModel):
    """Parameters of the video API for rows whose table does not set them. Empty: the model's own default holds.

    They are checked with each row, under the same rules as the table's columns.
    """

    model_config = ConfigDict(extra="forbid", title="Parameters for all rows")

    seconds: str | None = Field(default=None, description="Length of the clip in seconds.")
    resolution: str | None = Field(default=None, description="720P or 1080P (Wan), 480p ... 4k (Seedance).")
    ratio: str | None = Field(default=None, description="Aspect ratio, such as 16:9.")
    width: int | None = Field(default=None, description="Width in pixels.")
    height: int | None = Field(default=None, description="Height in pixels.")
    fps: int | None = Field(default=None, description="Frames per second, 15 to 60.")
    steps: int | None = Field(default=None, description="Denoising steps, 10 to 50.")
    guidance_scale: float | None = Field(default=None, description="Faithfulness to the prompt, 6 to 10.")
    seed: int | None = Field(default=None, description="The same seed gives the same clip.")
    negative_prompt: str | None = Field(default=None, description="What to keep out of the picture.")
    output_format: Literal["MP4", "WEBM"] | None = Field(default=None, description="Container of the clip.")
    output_quality: int | None = Field(default=None, description="Lower is better; the API's default is 20.")
    generate_audio: bool | None = Field(default=None, description="Sound, on models that can.")

    def set_values(self) -> dict[str, object]:
        """The parameters that are set, by name."""
        return self.model_dump(exclude_none=True)
