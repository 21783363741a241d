"""A panel with one line per method, optionally with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from modelpred.report.blocks import Panel
from modelpred.report.canvas import colour, draw
from modelpred.report.methods import look


@dataclass(frozen=True)
class Line:
    """Points of a method's line; `band` has its lower and upper ends."""

    method: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


def line_panel(
    name: str, title: str, lines: Sequence[Line], *, x_label: str, y_label: str
) -> Panel:
    """A panel of all lines, each in the style of its method."""

    def paint(axes: Axes) -> None:
        for line in lines:
            style = look(line.method)
            if line.band is not None:
                axes.fill_between(line.x, *line.band, color=colour(style.colour), alpha=0.2, lw=0)
            axes.plot(
                line.x, line.y, color=colour(style.colour), ls=style.dash, marker=style.marker,
                ms=4.5, markevery=max(1, len(line.x) // 8),
            )  # fmt: skip
        axes.set(xlabel=x_label, ylabel=y_label)

    middle = ", ".join(
        f"{look(line.method).label} {line.y[len(line.y) // 4]:.3g}" for line in lines if line.y
    )
    x = lines[0].x[len(lines[0].x) // 4]
    return draw(name, title, f"{title}: {y_label} at {x:.3g} ({x_label}): {middle}.", paint)
