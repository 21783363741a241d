"""What the page sends: an edit of the training set, and the requests that carry one."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_ADDED = 5000
MOST_COLUMNS = 10_000
Text = Annotated[str, Field(max_length=100_000)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Added(_Message):
    """Rows that are added, with cells as text; an empty cell is missing."""

    columns: list[Text] = Field(max_length=MOST_COLUMNS)
    rows: list[list[Text]] = Field(max_length=MOST_ADDED)
    labels: list[Text] = Field(max_length=MOST_ADDED)


class Edit(_Message):
    """An edit of the training set.

    Attributes:
        table: fingerprint of the table that it was made for.
        weights: how often a row counts, by id; added rows are new-0, new-1, ...
        labels: new labels, by id.
        added: rows that are added.
    """

    table: Text
    weights: dict[Text, Weight] = Field(default_factory=dict[str, float])
    labels: dict[Text, Text] = Field(default_factory=dict[str, str])
    added: Added | None = None

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not (self.weights or self.labels or (self.added and self.added.rows))


class Asked(_Message):
    """A request for the model of an edit."""

    edit: Edit


class ExplainAsked(_Message):
    """A request to explain a prediction: of a row by id, or of a typed row."""

    edit: Edit
    row: Text | None = None
    typed: Added | None = None


class PasteAsked(_Message):
    """Pasted CSV: rows with or without their label, or an edit that was downloaded."""

    csv: Annotated[str, Field(max_length=2_000_000)]
    labelled: bool = True


class ExportAsked(_Message):
    """A request for a file of the edit or of its model."""

    edit: Edit
    form: Literal["python", "csv", "json", "sklearn"]
