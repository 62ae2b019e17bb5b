"""The figures of the page: what `plots` draws, as inline SVG that a strict Content-Security-Policy lets stand.

matplotlib writes styles; here they are attributes, and colours are classes that a style sheet has for light and for
dark. Hatches are small patterns of our own, ids are unique on the page, and bars lead to the text about their code.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from markupsafe import Markup

from analyzer.knowledge.language import Language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"

COLOURS = {
    "#009e73": "green",
    "#e69f00": "orange",
    "#56b4e9": "sky",
    "#cc79a7": "pink",
    "#f0e442": "yellow",
    "#d55e00": "red",
    "#0072b2": "blue",
    "#000000": "ink",
    "#ffffff": "paper",
}
"""Colours of the plots that the page has its own shade of, for light and for dark."""

DROPPED = frozenset({"id", "transform", "type"})

TILE = 6
HATCHES = {
    "/": "M-1 1L1-1M0 6L6 0M5 7L7 5",
    "\\": "M-1 5L1 7M0 0L6 6M5-1L7 1",
    "x": "M-1 1L1-1M0 6L6 0M5 7L7 5M-1 5L1 7M0 0L6 6M5-1L7 1",
    "-": "M0 3H6",
    "|": "M3 0V6",
    "+": "M0 3H6M3 0V6",
    ".": "M2 3H4",
    "o": "M1.5 3a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0",
}
"""Lines in a tile for the first character of a hatch; matplotlib's own patterns take 100 KB and more."""

HEATS = 9
"""Steps of shade of a matrix."""


class Drawing(NamedTuple):
    """One figure: an inline SVG, what it shows in a line, and in words."""

    name: str
    caption: str
    about: str
    svg: Markup


def draw(
    name: str,
    table: list[dict[str, Any]],
    caption: str,
    language: Language,
    codes: list[dict[str, Any]],
    **options: Any,
) -> Drawing:
    """Draw one of the plots.

    Args:
        name: Of `plot_codes`, `plot_timeline` and so on.
        table: Its rows.
        caption: What it shows in a line.
        language: The reader's.
        codes: From the document: those that have a text to lead to.
        options: Further ones of the plot.

    """
    import pandas as pd

    from analyzer.report import plots

    axes: Axes = getattr(plots, f"plot_{name}")(pd.DataFrame(table), title="", language=language, **options)
    about = str(axes.get_label()).removeprefix(". ")
    if name == "codes":
        _link_codes(axes, codes, language)
    return Drawing(name, caption, about, _Inline(name).convert(axes))


def _link_codes(axes: "Axes", codes: list[dict[str, Any]], language: Language) -> None:
    """Let bars and their names lead to the text about their code."""
    from matplotlib.patches import Rectangle

    places = {language.label("plot.no_code"): "#no-code", language.label("plot.never_opened"): "#never-opened"}
    for entry in codes:
        code = entry["code"]
        for shown in (str(code), f"{code} {entry['name']}", language.label("plot.illegal", code=code)):
            places[shown] = f"#code-{code}"
    rows = {}
    for y, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        target = places.get(text.get_text())
        if target:
            text.set_url(target)
            rows[round(float(y))] = target
    for patch in axes.patches:
        y = round(patch.get_y() + patch.get_height() / 2) if isinstance(patch, Rectangle) else None
        if y in rows:
            patch.set_url(rows[y])


class _Inline:
    """One figure as an SVG that a page can hold under a strict policy: attributes and classes instead of styles."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._patterns: dict[tuple[str, str, str], str] = {}
        self._linked: set[str] = set()

    def convert(self, axes: "Axes") -> Markup:
        """Draw and convert."""
        from matplotlib.patches import Patch

        from analyzer.report.plots import save_figure

        figure = cast("Figure", axes.figure)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for patch in figure.findobj(Patch):
            hatch = patch.get_hatch()
            if hatch:
                ink = patch.get_edgecolor()
                patch.set_hatch("")
                patch.set_gid(f"hatch {hatch[0]} {_hex(ink)}")
        out = io.BytesIO()
        save_figure(figure, out, form="svg")
        root = ET.fromstring(out.getvalue().decode("utf-8"))  # noqa: S314 (matplotlib wrote it a moment ago)
        return self._inline(root)

    def _inline(self, root: ET.Element) -> Markup:
        view_box = root.get("viewBox", "")
        shown = [self._convert(child, "") for child in root]
        children = _merged(part for part in shown if part is not None)
        svg = ET.Element("svg", {"viewBox": view_box, "direction": "ltr", "class": "plot", "focusable": "false"})
        svg.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
        svg.attrib |= {"role": "group" if self._linked else "img"}
        svg.attrib |= {"aria-labelledby": f"{self._name}-caption", "aria-describedby": f"{self._name}-about"}
        if self._patterns:
            svg.append(self._defined())
        svg.extend(children)
        return Markup(ET.tostring(svg, encoding="unicode"))  # noqa: S704 (serialized: text in it is escaped)

    def _defined(self) -> ET.Element:
        defs = ET.Element("defs")
        for (hatch, fill, ink), name in self._patterns.items():
            size = {"width": str(TILE), "height": str(TILE)}
            pattern = ET.SubElement(defs, "pattern", {"id": name, "patternUnits": "userSpaceOnUse", **size})
            ET.SubElement(pattern, "rect", {**size, "class": f"f-{fill}"})
            line = {"class": f"s-{ink}", "fill": "none", "stroke-width": "1.6" if hatch == "." else "0.8"}
            ET.SubElement(pattern, "path", {"d": HATCHES[hatch], **line})
        return defs

    def _convert(self, element: ET.Element, gid: str) -> ET.Element | None:
        """An element with what it holds, None where nothing is left of it."""
        tag = element.tag.removeprefix(SVG)
        if tag in ("metadata", "style", "title", "desc"):
            return None
        own = element.get("id", "")
        gid = own if own.startswith(("hatch ", "QuadMesh")) else gid
        made = ET.Element(tag, self._attributes(tag, element, gid))
        made.text = element.text if tag == "text" else None
        children = (self._convert(child, gid) for child in element)
        made.extend(_merged(child for child in children if child is not None))
        if tag in ("g", "defs") and not len(made):
            return None
        if tag == "g" and len(made) == 1 and not made.attrib:
            return made[0]
        return made

    def _attributes(self, tag: str, element: ET.Element, gid: str) -> dict[str, str]:
        given = dict(element.attrib)
        style = dict(part.split(":", 1) for part in given.pop("style", "").split(";") if ":" in part)
        attributes = {
            name: value
            for name, value in given.items()
            if name not in DROPPED and not name.startswith("{http://www.w3.org/XML")
        }
        attributes |= {name.strip(): value.strip() for name, value in style.items()}
        attributes.pop("font-family", None)
        if tag in ("path", "clipPath") and "id" in given:
            attributes["id"] = f"{self._name}-{given['id']}"
        transform = given.get("transform", "")
        if transform and not transform.startswith("rotate(-0 "):
            attributes["transform"] = _rounded(transform)
        for name in ("d", "x", "y", "width", "height"):
            if name in attributes:
                attributes[name] = _rounded(attributes[name])
        if "clip-path" in attributes:
            attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{self._name}-")
        self._link(tag, attributes)
        self._colour(tag, attributes, gid)
        return attributes

    def _link(self, tag: str, attributes: dict[str, str]) -> None:
        target = attributes.pop(f"{XLINK}href", None)
        if target is None:
            return
        if tag == "use":
            attributes["href"] = f"#{self._name}-{target[1:]}"
            return
        for name in [name for name in attributes if name.startswith(XLINK) or name == "target"]:
            del attributes[name]
        attributes["href"] = target
        self._linked.add(target)

    def _colour(self, tag: str, attributes: dict[str, str], gid: str) -> None:
        """Colours as classes, so that light and dark have their own."""
        classes = []
        if tag == "text":
            attributes.setdefault("fill", "#000000")
        fill, stroke = attributes.get("fill", ""), attributes.get("stroke", "")
        if gid.startswith("QuadMesh") and fill.startswith("#"):
            classes += [f"heat-{_heat(fill)}", "s-paper"]
            del attributes["fill"], attributes["stroke"]
        elif gid.startswith("hatch ") and tag == "path" and fill.startswith("#"):
            _, hatch, ink = gid.split(" ")
            key = (hatch, _colour_name(fill), _colour_name(ink))
            name = self._patterns.setdefault(key, f"{self._name}-hatch-{len(self._patterns)}")
            attributes["fill"] = f"url(#{name})"
            attributes.pop("stroke", None)
        else:
            for prefix, part, value in (("f", "fill", fill), ("s", "stroke", stroke)):
                if value.startswith("#"):
                    classes.append(f"{prefix}-{_colour_name(value, is_text=tag == 'text')}")
                    del attributes[part]
        if classes:
            attributes["class"] = " ".join(classes)


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))


def _rounded(text: str) -> str:
    """Coordinates to a hundredth of a point, in one line."""
    return " ".join(re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), text).split())


def _colour_name(colour: str, *, is_text: bool = False) -> str:
    """The page's name for a colour; greys by how dark they are."""
    known = COLOURS.get(colour.lower())
    if known:
        return known
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if max(red, green, blue) - min(red, green, blue) > 8:
        return "blue"
    if red < 0x50:
        return "ink"
    if red < 0x90 or is_text:
        return "muted"
    return "dim" if red < 0xB0 else "grey" if red < 0xDE else "grid"


def _heat(colour: str) -> int:
    """How dark a cell of a matrix is; from 6 on `plots` writes on it in white, and so does the page."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    lightness = 0.299 * red + 0.587 * green + 0.114 * blue
    if lightness >= 0.97:
        return 0
    if lightness >= 0.5:
        return 1 + int((0.97 - lightness) / 0.47 * 4.99)
    return min(HEATS, 6 + int((0.5 - lightness) / 0.25 * 4))


def _merged(elements: Iterable[ET.Element]) -> list[ET.Element]:
    """Neighbouring paths that look the same as one path."""
    merged: list[ET.Element] = []
    for element in elements:
        before = merged[-1] if merged else None
        if before is not None and before.tag == element.tag == "path" and _look(before) == _look(element):
            before.set("d", f"{before.get('d', '')} {element.get('d', '')}")
        else:
            merged.append(element)
    return merged


def _look(path: ET.Element) -> dict[str, str]:
    return {name: value for name, value in path.attrib.items() if name != "d"}


def steps_between(first: str, last: str, step_s: float) -> int:
    """How many steps of time lie between two instants in RFC 3339, both included."""
    begin, end = (np.datetime64(time.rstrip("Z"), "ns").astype("int64") for time in (first, last))
    return int((end - begin) // round(step_s * 1e9)) + 1
