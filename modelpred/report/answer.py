"""The answer to one question of the report's first screen, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        question: as a user asks it.
        words: the answer, in one or two sentences.
        topic: the question in one or two words, for a terminal.
        brief: the answer in one line for a terminal; a second line names rows.
        items: rows and numbers that support it.
        note: how certain it is.
        link: anchor of the section with the details.
    """

    question: str
    words: str
    topic: str = ""
    brief: Sequence[str] = ()
    items: Sequence[Item] = ()
    note: str = ""
    link: str = ""


@dataclass(frozen=True)  # a named tuple would lose its names in answers.json
class Item:
    """A row or a number that supports an answer: its name and a few words."""

    name: str
    words: str
