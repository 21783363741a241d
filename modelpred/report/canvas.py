"""Draws panels as inline SVG with real text and with colours as CSS variables.

matplotlib is used through its object-oriented interface, without a date and with a fixed salt for
ids, so the output is reproducible. Afterwards each colour is replaced by its CSS variable, so that
one file serves a light and a dark page, and ids get the panel's name as a prefix, since a page has
many drawings.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from modelpred.report.blocks import Key, Panel
from modelpred.report.methods import COLOURS, Look, is_predictor, look

# Widths of panels in rows of two and of three, in inches of 72 units. The page shows a unit as about
# one pixel, so texts have the same size in both.
HALF, THIRD = 5.9, 4.75
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "modelpred",
    "font.size": 11.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}
_DASHES = {
    "-": "",
    "--": "stroke-dasharray='6 3'",
    "-.": "stroke-dasharray='7 3 2 3'",
    ":": "stroke-dasharray='2 3'",
}
_SHAPES = {
    "o": "<circle cx='17' cy='7' r='4'/>",
    "s": "<rect x='13' y='3' width='8' height='8'/>",
    "D": "<path d='M17 2l5 5-5 5-5-5z'/>",
    "^": "<path d='M17 2l5 9h-10z'/>",
    "v": "<path d='M17 12l5-9h-10z'/>",
    "X": "<path d='M13 3l8 8m0-8l-8 8' stroke-width='3'/>",
    "P": "<path d='M17 2v10m-5-5h10' stroke-width='3'/>",
    "*": "<path d='M17 1l2 4 4 .5-3 3 .8 4.500-3.800-2-3.800 2 .8-4.500-3-3 4-.5z'/>",
    "": "",
}
_LEGEND_HEIGHT, _LEGEND_ENTRIES = 24, 6  # of a line of the legend of a standalone file
_VIEW = re.compile(r' viewBox="([^"]*)"')


def colour(name: str) -> str:
    """The colour that represents a CSS variable while a panel is drawn."""
    return COLOURS[name][0]


def draw(
    name: str,
    title: str,
    description: str,
    paint: Callable[[Axes], None],
    *,
    width: float = HALF,
    shape: float = 0.72,
) -> Panel:
    """A panel that `paint` draws, as inline SVG with colours of the page.

    `shape` is the height divided by the width.
    """
    settings: dict[Any, Any] = {  # matplotlib types its keys as literals
        **_SETTINGS,
        "text.parse_math": False,  # names of rows and classes are data
        "grid.color": colour("grid"),
        "axes.edgecolor": colour("muted"),
        "axes.labelcolor": colour("ink"),
        "text.color": colour("ink"),
        "xtick.color": colour("muted"),
        "ytick.color": colour("muted"),
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, shape * width), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        paint(axes)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return Panel(title, _inline(text.getvalue(), name), description)


def _inline(svg: str, name: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)  # groups are never referred to
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    # Smaller by a third: the page's font, a hundredth of a pixel, no rotation by nothing.
    svg = re.sub(r" font-family: [^;]*;| transform=\"rotate\(-0 [^)]*\)\"", "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: _rounded(tag[0]), svg)  # not the texts between the tags
    for variable, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{variable})")
    return Markup(re.sub(r"\s*\n\s*", "\n", svg))  # matplotlib escapes its texts


def _rounded(tag: str) -> str:
    """The tag with its lengths rounded to a hundredth of a pixel."""
    return re.sub(
        r"-?\d+\.\d{3,}", lambda length: f"{float(length[0]):.2f}".rstrip("0").rstrip("."), tag
    )


def standalone(panels: Sequence[Panel], *, columns: int, legend: Sequence[Key]) -> str:
    """Text of an SVG file with panels, their titles and a legend, in the colours of the light page.

    Args:
        panels: results of `draw`.
        columns: number of panels in a row.
        legend: entries below the panels.
    """
    views = [[float(number) for number in _view(panel).split()] for panel in panels]
    width, height = max(view[2] for view in views), max(view[3] for view in views)
    head, rows = 26, -(-len(panels) // columns)
    parts: list[str] = []
    for index, (panel, view) in enumerate(zip(panels, views, strict=True)):
        x, y = width * (index % columns), (height + head) * (index // columns)
        drawing = _VIEW.sub("", str(panel.svg), count=1)  # inserted again below
        drawing = drawing.replace(
            "<svg ", f'<svg x="{x:g}" y="{y + head:g}" width="{view[2]:g}" height="{view[3]:g}" '
            f'viewBox="{_view(panel)}" ', 1,
        )  # fmt: skip
        parts.append(
            f'<text x="{x + 12:g}" y="{y + 18:g}" font-size="13" font-weight="bold" '
            f'fill="{colour("ink")}">{escape(panel.title)}</text>{drawing}'
        )
    parts += _legend(legend, width=columns * width, top=rows * (height + head))
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {columns * width:g} '
        f'{rows * (height + head) + _LEGEND_HEIGHT * _lines(legend):g}" '
        f'font-family="Helvetica, Arial, sans-serif">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )
    for variable in COLOURS:
        text = text.replace(f"var(--{variable})", colour(variable))
    return text


def _lines(legend: Sequence[Key]) -> int:
    return -(-len(legend) // _LEGEND_ENTRIES)


def _legend(legend: Sequence[Key], *, width: float, top: float) -> list[str]:
    parts: list[str] = []
    for index, key in enumerate(legend):
        x = 12 + (width - 12) / _LEGEND_ENTRIES * (index % _LEGEND_ENTRIES)
        y = top + _LEGEND_HEIGHT * (index // _LEGEND_ENTRIES)
        drawing = str(key.swatch).replace(
            "<svg ", f'<svg x="{x:g}" y="{y + 4:g}" width="34" height="14" ', 1
        )
        parts.append(
            f'{drawing}<text x="{x + 42:g}" y="{y + 15:g}" font-size="12" '
            f'fill="{colour("ink")}">{escape(key.label)}</text>'
        )
    return parts


def _view(panel: Panel) -> str:
    found = _VIEW.search(str(panel.svg))
    assert found is not None  # every drawing of `draw` has one
    return found.group(1)


def swatch(style: Look) -> Markup:
    """The line and marker of a method, for a legend."""
    return Markup(  # built from the constants above
        f"<svg class='swatch' viewBox='0 0 34 14' aria-hidden='true' fill='var(--{style.colour})' "
        f"stroke='var(--{style.colour})'><path d='M0 7h34' stroke-width='2' fill='none' "
        f"{_DASHES[style.dash]}/>{_SHAPES[style.marker]}</svg>"
    )


def keys(methods: Sequence[str]) -> tuple[Key, ...]:
    """The legend of some methods."""
    return tuple(Key(look(method).label, swatch(look(method))) for method in methods)


def curve_keys(methods: Sequence[str]) -> tuple[Key, ...]:
    """The legend of some methods, with one entry for all variants of the predictor."""
    predictor = Key("ModelPred, all settings", swatch(look("predictor")))
    others = keys([method for method in methods if not is_predictor(method)])
    return (predictor, *others) if len(others) < len(methods) else others


def plain_log_ticks(axes: Axes, *, vertical: bool, percents: bool = False) -> None:
    """Set ticks without exponents, two or three per decade if the range has few powers of ten."""
    axis = axes.yaxis if vertical else axes.xaxis
    low, high = sorted(axes.get_ylim() if vertical else axes.get_xlim())
    decades = math.log10(high / low)
    subs = next(
        subs
        for most, subs in ((0.5, range(1, 10)), (2, (1, 2, 5)), (4, (1, 3)), (math.inf, (1,)))
        if decades < most
    )
    axis.set_major_locator(LogLocator(subs=subs, numticks=14))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(_percent_tick if percents else _number_tick))


def _percent_tick(tick: float, _: int) -> str:
    return f"{100 * tick:g}%"


def _number_tick(tick: float, _: int) -> str:
    return f"{tick:g}"
