"""Draws the page's figures with matplotlib, as SVG whose colours are the page's CSS variables.

Everything that a content security policy would refuse (style attributes, style elements) becomes
presentation attributes, so that one drawing serves the light and the dark page.
"""

import dataclasses
import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"
# matplotlib writes colours as they are given, so each of these stands for a variable of the page.
_INK, _FAINT = "#010203", "#010204"
_WIDTH = 5.6  # inches; texts stay readable on a phone, and are not large on a wide screen
_SERIES = tuple(f"#0102{n:02x}" for n in range(16, 26))
_VARIABLES = {
    _INK: "var(--ink-2)",
    _FAINT: "var(--line)",
    **{colour: f"var(--c{n})" for n, colour in enumerate(_SERIES)},
}
# What means the same has the same colour in every figure; other names take what is free.
_FIXED = {
    "all": 0,
    "all tasks": 0,
    "easy": 1,
    "hard": 2,
    "expert": 3,
    "won": 1,
    "failed": 2,
    "max steps": 5,
    "max context": 3,
    "invalid actions": 4,
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a figure.

    Attributes:
        name: in the legend.
        values: by place on the x axis; None where there is nothing.
        intervals: lower and upper end of each value; () draws none.
        dashed: whether it is a reference rather than a result.
    """

    name: str
    values: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None] = ()
    dashed: bool = False


def shares(panels: Mapping[str, tuple[Sequence[str], Sequence[Line]]]) -> str:
    """Panels next to each other of shares (0-1) with intervals, over named places on the x axis."""
    names = list(dict.fromkeys(line.name for _, lines in panels.values() for line in lines))
    figure, axes = _figure(len(panels), names, height=2.2)
    for each, (title, (places, lines)) in zip(axes, panels.items(), strict=True):
        for line in lines:
            _share(each, line, names)
        each.set_title(title if len(panels) > 1 else "")
        each.set_xticks(range(len(places)), places)
        each.set_xlim(-0.4, len(places) - 0.6)
        each.set_ylim(0, 1.04)
        each.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    _legend(figure, axes)
    return _svg(figure)


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """Curves over numbers: for each name the x and the y values."""
    figure, (axes,) = _figure(1, list(lines), height=2.2, bottom=0.45)
    colours = _colours(list(lines))
    for name, (steps, values) in lines.items():
        axes.plot(steps, values, color=colours[name], label=name, linewidth=1.4)
        if len(steps) == 1:
            axes.plot(steps, values, "o", color=colours[name])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    _legend(figure, [axes])
    return _svg(figure)


def bars(rows: Sequence[str], parts: Mapping[str, Sequence[float]], x: str) -> str:
    """Horizontal bars, one a row, of parts that add up."""
    # A character is some 0.08 inches wide.
    left = 0.15 + 0.08 * max(map(len, rows), default=0)
    figure, (axes,) = _figure(1, list(parts), height=0.5 + 0.34 * len(rows), left=left, bottom=0.45)
    begins = [0.0] * len(rows)
    colours = _colours(list(parts))
    for name, values in parts.items():
        axes.barh(rows, values, left=begins, color=colours[name], label=name, height=0.62)
        begins = [a + b for a, b in zip(begins, values, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel(x)
    _legend(figure, [axes])
    return _svg(figure)


def _share(axes: Any, line: Line, names: Sequence[str]) -> None:
    known = [(i, value) for i, value in enumerate(line.values) if value is not None]
    if not known:
        return
    # Side by side, so that the intervals of lines that coincide can be told apart.
    number, count = names.index(line.name), len(names)
    shift = 0.0 if line.dashed else (number - (count - 1) / 2) * min(0.06, 0.3 / count)
    places = [place + shift for place, _ in known]
    colour = _colours(names)[line.name]
    style = {"color": colour, "label": line.name}
    if line.dashed:
        axes.plot(places, [value for _, value in known], "--", linewidth=1.2, **style)
        return
    axes.plot(places, [value for _, value in known], "o-", linewidth=1.8, markersize=4.5, **style)
    for place, (index, _) in zip(places, known, strict=True):
        if index < len(line.intervals) and (ends := line.intervals[index]):
            axes.plot([place, place], ends, color=colour, linewidth=1.1, alpha=0.75)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name."""
    taken = {_FIXED[name] for name in names if name in _FIXED}
    free = itertools.cycle([n for n in range(len(_SERIES)) if n not in taken])
    return {name: _SERIES[_FIXED[name] if name in _FIXED else next(free)] for name in names}


def _figure(
    panels: int, names: Sequence[str], *, height: float, left: float = 0.55, bottom: float = 0.25
) -> tuple[Any, Sequence[Any]]:
    """A figure of some panels, with room for a legend of `names`; height and margins in inches."""
    # Not at the top: it takes half a second, which a command that draws nothing need not wait for.
    import matplotlib
    from matplotlib.figure import Figure

    top = 0.1 + 0.2 * _legend_rows(names) + 0.25 * (panels > 1)
    height += top
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    # By hand: a layout that measures all texts takes most of the time of a drawing.
    figure.subplots_adjust(
        left=left / _WIDTH,
        right=1 - 0.1 / _WIDTH,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=0.08,
    )
    return figure, list(axes)


def _legend_rows(names: Sequence[str]) -> int:
    """Rows of a legend; none for a single name."""
    if len(names) < 2:
        return 0
    return math.ceil(sum(0.45 + 0.08 * len(name) for name in names) / _WIDTH)


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    found: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True)) | found
    if rows := _legend_rows(list(found)):
        figure.legend(
            found.values(),
            found.keys(),
            loc="upper left",
            bbox_to_anchor=(0, 1),
            ncols=math.ceil(len(found) / rows),
            frameon=False,
            labelcolor=_INK,
            handlelength=1.2,
            columnspacing=1.2,
            borderaxespad=0,
            borderpad=0,
        )


def _svg(figure: Any) -> str:
    import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        matplotlib.rcParams["svg.hashsalt"] = "eef"  # equal figures have equal ids
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    return _themed(written.getvalue())


def _themed(svg: str) -> str:
    """A drawing that takes its colours and font from the page that it stands in."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    used = set(re.findall(r"#([\w.]+)", svg))
    prefix = f"f{zlib.crc32(svg.encode()):08x}-"  # ids are of the whole page
    for element in root.iter():
        for name, value in _declarations(element.attrib.pop("style", "")):
            element.set(name, _VARIABLES.get(value, value))
        if element.tag == f"{{{_SVG}}}text":
            element.attrib.setdefault("fill", _VARIABLES[_INK])
        if (name := element.attrib.pop("id", "")) in used:
            element.set("id", prefix + name)
        for key in (f"{{{_LINK}}}href", "clip-path"):
            if key in element.attrib:
                element.set(key, element.get(key, "").replace("#", f"#{prefix}"))
    root.set("aria-hidden", "true")  # the figure has a caption, and its numbers as a table
    root.set("focusable", "false")
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    """The declarations of a style attribute but for the font, which is the page's."""
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            name, value = "font-size", next(iter(re.findall(r"[\d.]+px", value)), "10px")
        if name not in ("font-family", "font-weight", "font-style", "font-stretch"):
            yield name, value
