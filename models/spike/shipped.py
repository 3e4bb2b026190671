"""The trained networks that ship with this package, by name: ``models.spike.load("digits")``.

Each is a file ``pretrained/NAME.safetensors`` with a card ``pretrained/NAME.md``: data, command, figures, limits.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sdn.errors import UserError

PRETRAINED = Path(__file__).parent / "pretrained"


def names() -> list[str]:
    """The networks that ship."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))


def locate(source: str | PathLike[str]) -> Path:
    """The file that ``source`` means: its path, or a bare word (no folder, no ending) the name of a shipped network.

    A file of the user's is never hidden by a shipped one: a path that exists is that path.

    Raises:
        UserError: a bare word that is neither a file nor a name.
    """
    try:
        path = Path(source)
    except TypeError as error:
        raise UserError(f"a network is named by its path or a word, not by {source!r}") from error
    if path.exists() or path.suffix or path.name != str(source):
        return path
    shipped = PRETRAINED / f"{path.name}.safetensors"
    if not shipped.is_file():
        raise UserError(f"no network file at {path}, and no network {path.name} ships (there are {', '.join(names())})")
    return shipped
