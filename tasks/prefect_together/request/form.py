"""The parameters of a run as Prefect's form shows them: choices, bounds, a name for what "not set" means.

The same annotations are the shell's options. In the form (seen in both UIs of Prefect 3.8.8) a union is a row of tabs
that have its members' titles, and an `enum` is a dropdown; what is not set is sent as null, which the server refuses
for a type that has no null in its schema and a default. So what may be left out at the top says None with a title, and
what may be left out in a model has no default in its schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from prefect_together.request.catalogue import catalogue
from prefect_together.request.fields import HIGHEST_FPS, LOWEST_FPS, MOST_PIXELS

TABLE = Parameter(group=Group("Table and output", sort_key=1))
MONEY = Parameter(group=Group("Money", sort_key=2))
VIDEO = Parameter(group=Group("Video parameters", sort_key=3))
WAITING = Parameter(group=Group("Waiting and failures", sort_key=4))
LOCATIONS = Parameter(group=Group("Where things are", sort_key=5))
SANDBOX = Parameter(group=Group("Sandbox", sort_key=6))
"""Headings of `--help`, in this order."""


def listed_models() -> list[str]:
    """The ids that the form offers, in the catalogue's order."""
    return [spec.id for spec in catalogue().values() if spec.is_offered]


def _dropdown() -> dict[str, Any]:
    return {"enum": listed_models()}


ListedModel = Annotated[str, Field(title="From the list", json_schema_extra=_dropdown())]
AnyModel = Annotated[str, Field(title="Another id")]
Model = ListedModel | AnyModel
"""Any id; the form offers the listed ones in a dropdown beside it."""

ModelOrTable = Annotated[None, Field(title="The table names it")] | ListedModel | AnyModel

_Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False, title="Dollars")]
Budget = Annotated[None, Field(title="No cap")] | _Dollars
ApprovalLimit = Annotated[None, Field(title="Never ask")] | _Dollars


@dataclass(frozen=True)
class NotSet:
    """The title of None, the first choice of a union, where None itself must stay bare.

    cyclopts counts the words that an option takes by its union's members, and passes over a bare None alone.
    """

    title: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        set_members = [one for one in found["anyOf"] if one != {"type": "null"}]
        return {**found, "anyOf": [{"title": self.title, "type": "null"}, *set_members]}


Images = Annotated[Annotated[list[str], Field(title="URLs or files")] | None, NotSet("None")]
BlockName = (
    Annotated[None, Field(title="The key of the worker's environment")]
    | Annotated[str, Field(title="The key in a block, by its name")]
)
LedgerPlace = (
    Annotated[None, Field(title="In the output directory")] | Annotated[str, Field(title="Path or postgresql:// URL")]
)
Sheet = Annotated[None, Field(title="The first with prompts")] | Annotated[str, Field(title="By its name")]
ImageDirectory = Annotated[None, Field(title="The table's directory")] | Annotated[str, Field(title="Directory")]
ClipMegabytes = Annotated[int, Field(ge=1, le=1_000_000)]
PlannedDirectory = Annotated[None, Field(title="None yet")] | Annotated[str, Field(title="Directory or URL")]
Image = Annotated[None, Field(title="None")] | Annotated[str, Field(title="URL or file")]


def _left_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _field(title: str, description: str) -> Any:
    return Field(default=None, title=title, description=description, json_schema_extra=_left_out)


class VideoParameters(BaseModel):
    """Parameters of the video API for rows whose table does not set them. Empty: the model's own default holds.

    They are checked with each row, under the same rules as the table's columns.
    """

    model_config = ConfigDict(extra="forbid", title="Parameters for all rows")

    seconds: str | SkipJsonSchema[None] = _field("seconds", "Length of the clip in seconds.")
    resolution: str | SkipJsonSchema[None] = _field("resolution", "720P or 1080P (Wan), 480p ... 4k (Seedance).")
    ratio: str | SkipJsonSchema[None] = _field("ratio", "Aspect ratio, such as 16:9.")
    width: Annotated[int, Field(ge=1, le=MOST_PIXELS)] | SkipJsonSchema[None] = _field("width", "Width in pixels.")
    height: Annotated[int, Field(ge=1, le=MOST_PIXELS)] | SkipJsonSchema[None] = _field("height", "Height in pixels.")
    fps: Annotated[int, Field(ge=LOWEST_FPS, le=HIGHEST_FPS)] | SkipJsonSchema[None] = _field(
        "fps", f"Frames per second, {LOWEST_FPS} to {HIGHEST_FPS}."
    )
    steps: Annotated[int, Field(ge=1)] | SkipJsonSchema[None] = _field("steps", "Denoising steps, usually 10 to 50.")
    guidance_scale: Annotated[float, Field(ge=0)] | SkipJsonSchema[None] = _field(
        "guidance_scale", "Faithfulness to the prompt, usually 6 to 10."
    )
    seed: int | SkipJsonSchema[None] = _field("seed", "The same seed gives the same clip.")
    negative_prompt: str | SkipJsonSchema[None] = _field("negative_prompt", "What to keep out of the picture.")
    output_format: Literal["MP4", "WEBM"] | SkipJsonSchema[None] = _field("output_format", "Container of the clip.")
    output_quality: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = _field(
        "output_quality", "Lower is better; the API's default is 20."
    )
    generate_audio: Annotated[Annotated[bool, Field(title="Choose")] | None, NotSet("The model's default")] = Field(
        default=None, title="generate_audio", description="Sound, on models that can."
    )

    def set_values(self) -> dict[str, object]:
        """The parameters that are set, by name."""
        return self.model_dump(exclude_none=True)


ForAllRows = Annotated[VideoParameters | SkipJsonSchema[None], VIDEO, Parameter(name="*")]


def for_all_rows(model: str | None, parameters: VideoParameters | None) -> dict[str, object]:
    """What holds for rows that do not set it themselves, by the API's names."""
    values = {} if parameters is None else parameters.set_values()
    return values | ({"model": model} if model else {})
