"""A network as one HTML file that runs it: weights, samples, engine and drawing inside, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from models.spike.network import Network
from sdn.errors import UserError
from sdn.files import write_text
from src.dataloaders.base import SequenceData
from src.live.network import description
from src.live.samples import choose, packed, picture_of
from src.live.source import open_network

HERE = Path(__file__).parent
SCRIPTS: tuple[str, ...] = tuple(
    f"{name}.js" for name in ("engine", "run", "words", "charts", "pad", "strip", "stopwatch", "page")
)
"""In the order in which they stand in the page; the first two know nothing of a browser."""
VIEWS: tuple[str, ...] = ("image", "series")


def export_page(
    sources: Sequence[str],
    path: str | PathLike[str],
    names: Sequence[str] = (),
    count: int | None = None,
    view: str | None = None,
) -> None:
    """The page of networks: checkpoints, one-file networks, or names of those that ship (:func:`entry` has the rest).

    Raises:
        UserError: one of them cannot run on a page, there are too many names, or ``count`` is below 1.
    """
    if len(names) > len(sources):
        raise UserError(f"{len(names)} names for {len(sources)} networks; give one --name for each, in their order")
    if count is not None and count < 1:
        raise UserError(f"--samples must be at least 1, not {count}")
    entries = []
    for i, source in enumerate(sources):
        network, data = open_network(source)
        name = names[i] if i < len(names) else str(network.facts.get("dataset") or Path(source).stem)
        entries.append(entry(network, data, name, count, view))
    write_live_page(path, entries)


def entry(
    network: Network, data: SequenceData, name: str, count: int | None = None, view: str | None = None
) -> dict[str, Any]:
    """One network and its samples as plain data.

    Args:
        name: what the network is called on the page.
        count: samples of the test set, see :func:`src.live.samples.choose`.
        view: "image" to draw on, "series" for signals; None: by the data.

    Raises:
        UserError: the network cannot run on a page, the data are not its own, or are no pictures.
    """
    if view not in (None, *VIEWS):
        raise UserError(f"unknown view {view!r}; choose one of {', '.join(VIEWS)}")
    described = description(network)
    _check_fit(described["model"], data)
    samples = choose(data, count)
    picture = None if view == "series" else picture_of(data, samples)
    if view == "image" and picture is None:
        raise UserError("the sequences of this data set are no grey pictures read pixel by pixel; leave out --view")
    facts = {**network.facts, **data.facts()}
    classes = described["model"]["classes"]
    return {
        "name": name,
        **described,
        "class_names": [str(name) for name in facts.get("class_names") or range(classes)],
        "symbols": [str(token) for token in facts["tokens"]] if facts.get("tokens") else None,
        "samples": packed(network, samples),
        "picture": picture,
        "about": str(network.facts.get("about", "")),
        "facts": _facts(network),
    }


def _facts(network: Network) -> dict[str, str]:
    """What the page says of a network, as far as its file knows it: data, test figures, and how it was trained."""
    known = network.facts
    figures = known.get("figures") if isinstance(known.get("figures"), Mapping) else {}
    tests = {name.replace("/", " ").replace("_", " "): f"{value:.4g}" for name, value in figures.items()
             if name.startswith("test/") and name.count("/") == 1 and isinstance(value, (int, float))}  # fmt: skip
    rows = {"data": known.get("dataset"), "tau": known.get("tau"), **tests, "trained by": known.get("command")}
    return {name: str(value) for name, value in rows.items() if value is not None}


def _check_fit(model: Mapping[str, Any], data: SequenceData) -> None:
    wanted = (model["tokens"] or model["inputs"], model["classes"])
    found = (data.n_tokens or data.d_input, data.d_output)
    if wanted != found:
        raise UserError(
            f"the network reads {wanted[0]} inputs and knows {wanted[1]} classes, its data set has {found[0]} and "
            f"{found[1]}; export the checkpoint, which knows its data"
        )


def write_live_page(path: str | PathLike[str], entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the page to ``path``, atomically.

    Whatever comes from a network file or a data set is in one JSON block, in which no ``<`` stands, and goes into the
    page as text only. The page's own policy forbids every request and every script but its own, named by its hash.
    """
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (HERE / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        title=", ".join(str(e["name"]) for e in entries),
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
        data=Markup(safe_json(list(entries))),
    )
    write_text(path, page)


def safe_json(value: Any) -> str:
    """JSON that may stand in a ``<script>`` element: no text in it can end the element or begin a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
