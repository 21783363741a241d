"""YAML files that people and DVC write, read as YAML 1.2 and as DVC reads it.

`1e-6` is a number, `yes` is text, a repeated key is an error. No tag makes an object. Whatever cannot be read
is an error of one line that names the file: text that is not UTF-8, a second document, nesting without end. Aliases are
followed, up to a number of values: a few lines of them can expand to more than memory holds.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modelpred.errors import InvalidInput
from modelpred.sealed import read_file

# None, bool, int, float, str, or lists and dicts of these; their readers check them.
Content = Any

LARGEST_YAML = 2**20
DEEPEST = 50  # levels of lists and sections
MOST_VALUES = 20_000
LONGEST_NUMBER = 300  # digits; every such number is a finite float

# What counts as a number in YAML 1.2's core schema; everything else that is not quoted is text.
WHOLE_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
WORDS: Mapping[str, Content] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_yaml(path: Path, *, again: str) -> dict[str, Content]:
    """The sections of a YAML file.

    Raises:
        InvalidInput: it is missing, not an ordinary file or too large, with `again` as the advice; or not YAML.
    """
    return parse_yaml(read_file(path, again=again, largest=LARGEST_YAML), path.name)


def parse_yaml(content: bytes, name: str) -> dict[str, Content]:
    """The sections in the content of a YAML file of that name.

    Raises:
        InvalidInput: names the file and, where there is one, the line.
    """
    tree = _compose(content, name)
    if not isinstance(tree, yaml.MappingNode):
        raise InvalidInput(f"{name}: expected a section of keys, got {_kind(tree)}")
    return _Values(name).mapping(tree, depth=0)


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, which stops at the deepest level in place of Python's limit on recursion."""

    _depth = 0

    # Any: a node, a number or nothing, which PyYAML passes through.
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        self._depth += 1
        if self._depth > DEEPEST + 1:  # the outermost section is level 0
            problem = f"nested too deeply; at most {DEEPEST} levels are read"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(content: bytes, name: str) -> yaml.Node | None:
    """The tree of nodes; None for an empty file."""
    try:
        return yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}: expected text in UTF-8; {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # Where more than one document is found, only the context says that one was expected.
        context = f"{error.context} " if "single document" in str(error.context) else ""
        raise InvalidInput(f"{name}: line {line} is not YAML: {context}{error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{name}: not YAML: {' '.join(str(error).split())}") from error


def _kind(tree: yaml.Node | None) -> str:
    """What a file holds in place of sections, in words."""
    if isinstance(tree, yaml.SequenceNode):
        return "a list"
    return "null" if tree is None else " ".join(str(tree.value).split())[:60]


class _Values:
    """Turns the nodes of one file into values and counts them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def mapping(self, node: yaml.MappingNode, *, depth: int) -> dict[str, Content]:
        """The values of a mapping by key, at that level of nesting."""
        found: dict[str, Content] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refused(key_node, "has a list or a section as a key; expected a word")
            key = self._text(key_node)
            if key in found:
                raise self._refused(key_node, f"gives {key!r} a second time; keep one")
            found[key] = self._value(value, depth=depth + 1)
        return found

    def _value(self, node: yaml.Node, *, depth: int) -> Content:
        self._count += 1
        if depth > DEEPEST:
            raise self._refused(node, f"is nested too deeply; at most {DEEPEST} levels are read")
        if self._count > MOST_VALUES:
            raise self._refused(node, f"holds too much; at most {MOST_VALUES:,} values are read")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth=depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, depth=depth + 1) for item in node.value]
        text = self._text(node)
        quoted = isinstance(node, yaml.ScalarNode) and node.style
        return text if quoted else self._plain(node, text)

    def _text(self, node: yaml.Node) -> str:
        """A scalar as text; characters that paths, names and JSON cannot have are refused."""
        text = str(node.value)
        if NO_TEXT.search(text):
            raise self._refused(node, "holds a character that is no text")
        return text

    def _plain(self, node: yaml.Node, text: str) -> Content:
        """What an unquoted word means."""
        if text in WORDS:
            return WORDS[text]
        if WHOLE_NUMBER.fullmatch(text):
            if len(text) > LONGEST_NUMBER:
                why = f"has a number of {len(text):,} digits; at most {LONGEST_NUMBER} are read"
                raise self._refused(node, why)
            return int(text)
        if NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def _refused(self, node: yaml.Node, why: str) -> InvalidInput:
        return InvalidInput(f"{self._name}: line {node.start_mark.line + 1} {why}")
