"""Section `dataset` of params.yaml: the table, the roles of its columns, and the rows to use."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelpred.numbers import Seed

SMALLEST_POOL = 3
AUTO = "auto"

ScalingName = Literal["standardise", "largest_row_norm", "none"]


def _delimiter(sign: str) -> str:
    """The sign, if it can separate cells."""
    if not sign.isascii() or sign.isalnum() or sign in "\"'\r\n\0.+-":
        raise ValueError("expected a sign such as , ; | or a tab")
    return sign


class DatasetConfig(BaseModel):
    """The table and its settings; params.yaml describes each key.

    `label` to `max_points` are for a user's table in files or from OpenML; built-in tables have these
    settings themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str = "spam"
    file: str | None = None
    watch: str = "data"
    label: str | None = None
    row_id: str | None = None
    group: str | None = None
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    dates: dict[str, str] = Field(default_factory=dict)
    levels: Annotated[int, Field(ge=2)] = 20
    delimiter: Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_delimiter)] = ","
    since: str | None = None
    max_points: Annotated[int, Field(ge=SMALLEST_POOL + 1)] | None = None
    points: Annotated[int, Field(ge=SMALLEST_POOL)] | Literal["auto"] = "auto"
    test: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | str = AUTO
    scaling: ScalingName = "standardise"
    flip: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Seed = 0
