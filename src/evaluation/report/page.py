"""A one-page HTML report: sections of words, tables and pictures in a single file that opens anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from sdn.files import write_text
from src.evaluation.report.figures import INK, SOFT, SPIKE

_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass
class Table:
    """A table: column titles, and rows of ready-formatted cells of the same length."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """One part of a report. Everything but the title may be left out; the order on the page is as listed here."""

    title: str
    text: str = ""
    command: str = ""
    table: Table | None = None
    pictures: Sequence[tuple[Markup | str, str]] = field(default_factory=tuple)  # (drawing or data URI, caption)
    note: str = ""


def drawing(figure: Figure) -> Markup:
    """A matplotlib figure as an inline SVG whose ink, soft and mark colours are those of the page, light or dark."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", dpi=200)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in ((INK, "ink"), ("#000000", "ink"), (SOFT, "soft"), (SPIKE, "mark")):
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg)


def data_uri(picture: Figure | str | PathLike[str]) -> str:
    """A matplotlib figure, or the path of a PNG or GIF file, as a ``data:`` URI."""
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
        raw, kind = buffer.getvalue(), "png"
    else:
        raw, kind = Path(picture).read_bytes(), Path(picture).suffix.lstrip(".")
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def write_page(
    path: str | PathLike[str], title: str, lead: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]
) -> None:
    """Write the report to ``path`` atomically.

    Args:
        lead: one paragraph under the title.
        facts: a few ``(figure, what it is)`` pairs, shown large at the top.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.render(title=title, lead=lead, facts=facts, sections=sections))
