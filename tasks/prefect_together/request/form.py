"""The parameters of a run as Prefect's form shows them: what is needed first, the rest in cards that open.

The same annotations are the shell's options, where a card's fields are flat. In the form (seen in both UIs of Prefect
3.8.8 and 3.9.0) a union is a row of tabs that have its members' titles, and an `enum` is a dropdown; what is not set is
sent as null, which the server refuses for a type that has no null in its schema and a default. So what may be left out
at the top says None with a title, and what may be left out in a card has no default in its schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema

from prefect_together.request.catalogue import catalogue
from prefect_together.request.fields import HIGHEST_FPS, LOWEST_FPS, MOST_PIXELS, values_of, wrong

TABLE = Parameter(group=Group("Table and output", sort_key=1), negative_iterable=())
MONEY = Parameter(group=Group("Money", sort_key=2))
VIDEO = Parameter(group=Group("Video parameters", sort_key=3), negative_iterable=())
WAITING = Parameter(group=Group("Waiting and failures", sort_key=4))
LOCATIONS = Parameter(group=Group("Where things are", sort_key=5))
SANDBOX = Parameter(group=Group("Sandbox", sort_key=6))
"""Headings of `--help`, in this order."""


def listed_models() -> list[str]:
    """The ids that the form offers, in the catalogue's order."""
    return [spec.id for spec in catalogue().values() if spec.is_offered]


@dataclass(frozen=True)
class OneOrSeveral:
    """A list, or None, that the form shows as a field for one value, with a tab for several beside it.

    To the shell it is a list: the option may be given several times. None stays bare: cyclopts counts the words that
    an option takes by its union's members.
    """

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        several = next(one for one in handler(schema)["anyOf"] if one.get("type") == "array")
        return {"anyOf": [{**several["items"], "title": "One"}, {**several, "title": "Several"}]}


def _each(value: object, info: ValidationInfo) -> object:
    """One value is a list of it, `a|b` one of two, as in a table's cell. A comma is in none of them."""
    if value is None:
        return None
    values = values_of(value)
    if mistake := _with_comma(values, info.field_name or ""):
        raise wrong(mistake)
    return values


def _with_comma(values: Iterable[object], field: str) -> str | None:
    joined = next((value for value in values if isinstance(value, str) and "," in value), None)
    if joined is None:
        return None
    option = f"--{field.replace('_', '-')}"
    repeated = " ".join(f"{option} {part.strip()}" for part in joined.split(","))
    return f'"{joined}" is not one value for {option}; for several, repeat the option: {repeated}'


def _check_models(_: object, models: Iterable[str] | None) -> None:
    if mistake := _with_comma(models or (), "model"):
        raise ValueError(mistake)


_EACH = BeforeValidator(_each)
MODELS = Parameter(validator=_check_models)
"""For the option of several models in a shell, which pydantic does not check there."""

_ONE_MODEL: list[JsonSchemaValue] = [
    {"title": "From the list", "type": "string", "enum": listed_models()},
    {"title": "Another id", "type": "string"},
]
Model = Annotated[str, WithJsonSchema({"anyOf": _ONE_MODEL})]
"""Any id; the form offers the listed ones in a dropdown beside it."""

_MODELS: list[JsonSchemaValue] = [
    {"title": "The table names it", "type": "null"},
    *_ONE_MODEL,
    {"title": "Several", "type": "array", "items": {"type": "string"}},
]
if TYPE_CHECKING:
    ModelsOrTable = str | list[str] | None
else:
    ModelsOrTable = Annotated[list[str] | None, _EACH, WithJsonSchema({"anyOf": _MODELS})]
    """One model, or several: a video of each."""

_Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False, title="Dollars")]
Budget = Annotated[None, Field(title="The team's, or none")] | _Dollars
OUTPUT_DIRECTORY = "out"
"""Where a table's videos are, in the runs that make, collect and plan them."""


@dataclass(frozen=True)
class Closed:
    """A card that shows its title alone until it is opened: a tab of no fields comes before that of the card."""

    title: str = "As usual"

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        no_fields: JsonSchemaValue = {
            "title": self.title,
            "type": "object",
            "properties": {},
            "additionalProperties": False,
        }
        return {"anyOf": [no_fields, {**handler(schema), "title": "Set here"}]}


def _undescribed(schema: dict[str, Any]) -> None:
    """Without the class's docstring: the parameter has a description of its own."""
    schema.pop("description", None)


class Card(BaseModel):
    """Parameters that the form shows together, and the shell as options of their own."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        field_title_generator=lambda name, _: name,
        json_schema_extra=_undescribed,
    )

    @model_serializer(mode="wrap")
    def _not_as_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what is not as usual: the form opens a card that has any value."""
        fields = type(self).model_fields
        return {name: value for name, value in handler(self).items() if value != fields[name].default}


def _left_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _optional(description: str) -> Any:
    """A field that may stay empty."""
    return Field(default=None, description=description, json_schema_extra=_left_out)


MaxInFlight = Annotated[Annotated[int, Field(ge=1, le=2000)] | SkipJsonSchema[None], WAITING]
_MAX_IN_FLIGHT = "Jobs at the provider at once, 1 to 2000. Empty: as the team has set it, or 20."
MaxClipMegabytes = Annotated[
    int, Field(ge=1, le=1_000_000, description="A larger clip is not downloaded, in millions of bytes."), WAITING
]
CatalogueChecks = Annotated[
    bool, Field(description="Check against the known limits of the models before anything is sent."), TABLE
]


class VideoLimits(Card):
    """How long one video is waited for, and what is checked."""

    model_config = ConfigDict(title="Limits")

    max_wait_minutes: Annotated[float, WAITING] = Field(
        default=60.0,
        gt=0,
        le=10_080,
        description="How long a job is waited for, up to a week (10080); what is not done by then is collected by a"
        " later run.",
    )
    max_clip_megabytes: MaxClipMegabytes = 1000
    catalogue_checks: CatalogueChecks = True


class Limits(VideoLimits):
    """What may be sent, and sent again, how much at once, and how long it is waited for."""

    max_in_flight: MaxInFlight = _optional(_MAX_IN_FLIGHT)
    concurrency_limit: Annotated[str | SkipJsonSchema[None], WAITING] = _optional(
        "Name of a global concurrency limit on the Prefect server: all flows that name it have no more jobs at the"
        " provider together. Empty: this run's max_in_flight alone."
    )
    shards: Annotated[int, LOCATIONS] = Field(
        default=1,
        ge=1,
        le=100,
        description="Runs that share the table, this one included, on the workers of a Prefect server, 1 to 100;"
        " max_in_flight and budget_usd hold for all together.",
    )
    max_inline_kilobytes: Annotated[int, WAITING] = Field(
        default=60,
        ge=10,
        le=20_000,
        description="How large the frame of another row's clip may be in a request, in thousands of characters of"
        " base64: above 60 the service may refuse it.",
    )
    allowed_failures: Annotated[int, WAITING] = Field(
        default=0,
        ge=0,
        description="How many rows may be failed, in doubt or refused before the run's state is Failed; 0 or more.",
    )
    approve_above_usd: Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False)] | SkipJsonSchema[None], MONEY] = (
        _optional("If what is newly sent may cost more dollars, the run pauses until approved in the UI. Empty: never.")
    )
    whole_chains: Annotated[bool, MONEY] = Field(
        default=False,
        description="Under a budget, begin a chain of rows that continue each other only if all that remains of it"
        " fits: at the estimates, without second jobs for failed ones, and if no other run uses the ledger meanwhile."
        " Not with shards.",
    )
    canary: Annotated[bool, MONEY] = Field(
        default=False,
        description="Send one video of each model first; if it is not downloaded, nothing more of that model is sent.",
    )
    retry_failed: Annotated[bool, MONEY] = Field(default=False, description="Send failed rows again.")
    resubmit_in_doubt: Annotated[bool, MONEY] = Field(
        default=False,
        description="Send rows again whose create call got no answer. They may be paid twice.",
    )
    stop_after: Annotated[Literal["stills"] | SkipJsonSchema[None], MONEY] = _optional(
        "stills: make only the stills of the rows that have a still_prompt, and end; the next run makes the videos."
    )
    rebuy: Annotated[bool, MONEY] = Field(
        default=False,
        description="Pay again for rows whose prompt and parameters are paid for under another id.",
    )


class CollectLimits(Card):
    """How long submitted jobs are waited for."""

    model_config = ConfigDict(title="Limits")

    max_wait_minutes: Annotated[float, WAITING] = Field(
        default=5.0,
        ge=0,
        le=10_080,
        description="How long a job is waited for, from now, up to a week (10080); 0 polls once.",
    )
    max_clip_megabytes: MaxClipMegabytes = 1000


class PlanLimits(Card):
    """What the plan reckons with."""

    model_config = ConfigDict(title="Limits")

    max_in_flight: MaxInFlight = _optional(_MAX_IN_FLIGHT)
    catalogue_checks: CatalogueChecks = True


LedgerUrl = Annotated[str | SkipJsonSchema[None], LOCATIONS]
_LEDGER = "Path or postgresql:// URL of the ledger. Empty: ledger.db in the output directory."
ImageDirectory = Annotated[str | SkipJsonSchema[None], TABLE]
_IMAGE_DIRECTORY = "Where relative image paths start. Empty: the directory of the table."
Sheet = Annotated[str | SkipJsonSchema[None], TABLE]
_SHEET = "Sheet of a workbook. Empty: the first visible one with a column prompt."


class VideoLocations(Card):
    """Where the key comes from, and how fast the sandbox is."""

    model_config = ConfigDict(title="Locations")

    credentials_block: Annotated[str | SkipJsonSchema[None], LOCATIONS] = _optional(
        "Name of a TogetherCredentials block. Empty: the team's, or TOGETHER_API_KEY of the worker's environment."
    )
    sandbox_speed: Annotated[float, SANDBOX] = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="How many times faster than usual the sandbox generates, up to 1000.",
    )


class CollectLocations(VideoLocations):
    """Where the key and the ledger are, and how fast the sandbox is."""

    ledger: LedgerUrl = _optional(_LEDGER)


class Locations(CollectLocations):
    """Where the key, the ledger and the table's images are, and how fast the sandbox is."""

    new_ledger: Annotated[bool, LOCATIONS] = Field(
        default=False,
        description="Begin a new ledger although the output directory shows paid work that the ledger does not know.",
    )
    image_directory: ImageDirectory = _optional(_IMAGE_DIRECTORY)
    sheet: Sheet = _optional(_SHEET)


class PlanLocations(Card):
    """Where the ledger and the table's images are."""

    model_config = ConfigDict(title="Locations")

    ledger: LedgerUrl = _optional(_LEDGER)
    image_directory: ImageDirectory = _optional(_IMAGE_DIRECTORY)
    sheet: Sheet = _optional(_SHEET)


class Images(Card):
    """Pictures that the video begins with, ends with or looks like: URLs, or files below the working directory."""

    model_config = ConfigDict(title="Images")

    first_frame: Annotated[str | SkipJsonSchema[None], TABLE] = _optional("Image to begin with.")
    last_frame: Annotated[str | SkipJsonSchema[None], TABLE] = _optional("Image to end with, on models that take one.")
    reference_images: Annotated[list[str], TABLE] = Field(
        default=[], description="Images for the look of the whole clip, on models that take them."
    )


_TRUE_OR_FALSE = WithJsonSchema({"type": "boolean", "enum": [True, False]})
"""A dropdown. None stays bare: cyclopts counts the words that an option takes by its union's members."""


_Value = TypeVar("_Value")
if TYPE_CHECKING:
    _Several = _Value | list[_Value] | None
else:
    _Several = Annotated[list[_Value] | None, _EACH, OneOrSeveral()]
_Pixels = _Several[Annotated[int, Field(ge=1, le=MOST_PIXELS)]]


class VideoParameters(Card):
    """Parameters of the video API for rows whose table does not set them. Empty: the model's own default holds.

    They are checked with each row, under the same rules as the table's columns. Where several values are given, there
    is a video for each combination.
    """

    model_config = ConfigDict(title="Parameters for all rows")

    seconds: _Several[str] = _optional("Length of the clip in seconds.")
    resolution: _Several[str] = _optional("720P or 1080P (Wan), 480p ... 4k (Seedance).")
    ratio: _Several[str] = _optional("Aspect ratio, such as 16:9.")
    width: _Pixels = _optional("Width in pixels.")
    height: _Pixels = _optional("Height in pixels.")
    fps: _Several[Annotated[int, Field(ge=LOWEST_FPS, le=HIGHEST_FPS)]] = _optional(
        f"Frames per second, {LOWEST_FPS} to {HIGHEST_FPS}."
    )
    steps: _Several[Annotated[int, Field(ge=1)]] = _optional("Denoising steps, usually 10 to 50.")
    guidance_scale: _Several[Annotated[float, Field(ge=0)]] = _optional("Faithfulness to the prompt, usually 6 to 10.")
    seed: _Several[int] = _optional("The same seed gives the same clip.")
    negative_prompt: str | SkipJsonSchema[None] = _optional("What to keep out of the picture.")
    output_format: _Several[Literal["MP4", "WEBM"]] = _optional("Container of the clip.")
    output_quality: _Several[Annotated[int, Field(ge=0)]] = _optional("Lower is better; the API's default is 20.")
    generate_audio: Annotated[bool | None, _TRUE_OR_FALSE] = _optional("Sound, on models that can.")
    still_model: str | SkipJsonSchema[None] = _optional("Image model for the rows of a table with a still_prompt.")


ForAllRows = Annotated[VideoParameters, Closed("The model's own"), VIDEO, Parameter(name="*")]


def for_all_rows(
    model: str | list[str] | None, parameters: VideoParameters, *, prompt_template: str | None = None
) -> dict[str, object]:
    """What holds for rows that do not set it themselves, by the API's names."""
    more: dict[str, object] = {"model": model, "prompt_template": prompt_template}
    return parameters.model_dump() | {name: value for name, value in more.items() if value}
