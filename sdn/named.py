"""Classes that a configuration or a file calls by their dotted name, ``package.module.Class``.

Importing a module runs its code, and files come from anywhere. So a name is followed only if the user vouches for it:

- it stands in the configuration of the user's own command (:mod:`src.config` calls :func:`allow`),
- ``--allow package`` or ``--allow package.module.Class`` was given to a command that reads a file, or the environment
  variable ``SDN_ALLOW`` holds it (several with commas),
- or its module is imported already, as in a notebook that has ``import package.module``.

What it leads to must be a class below the expected base. Nothing is called before that is known.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from .errors import UserError

VARIABLE = "SDN_ALLOW"
_allowed: set[str] = set()


def is_dotted(name: object) -> bool:
    """Whether ``name`` is meant as ``package.module.Class``."""
    return isinstance(name, str) and "." in name


def allow(*names: str) -> None:
    """Permit these classes, modules or whole packages to be imported in this process, for whoever names them."""
    _allowed.update(names)


class Allow(argparse.Action):
    """``parser.add_argument("--allow", action=Allow)``: :func:`allow` what is given; may be repeated."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        text = "package, module or class of yours that the file may name (may be given several times)"
        super().__init__(option_strings, dest, **{"help": text, "metavar": "NAME", **options})

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        allow(value)


def permitted(name: str) -> bool:
    """Whether the user vouches for the dotted ``name``."""
    module = name.rpartition(".")[0]
    given = _allowed | {part.strip() for part in os.environ.get(VARIABLE, "").split(",") if part.strip()}
    return module in sys.modules or any(name == part or name.startswith(f"{part}.") for part in given)


def find(name: str, base: type | tuple[type, ...], what: str, folder: Path | None = None) -> type:
    """The class of this dotted name, imported but not called.

    Args:
        base: the class it must derive from, or several of which it needs one.
        what: what it is to be, for the sentences ("dataset", "neuron").
        folder: looked through after Python's own path; None for the current folder.

    Raises:
        UserError: nobody vouches for the name, it cannot be imported, or it is no such class.
    """
    module, _, attribute = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{what} {name!r} is no dotted name; write package.module.Class")
    if not permitted(name):
        raise UserError(
            f"the {what} {name} is code of its own, which is run only if you vouch for it: add --allow {module} "
            f"(or {VARIABLE}={module} before the command) if you trust it"
        )
    found = getattr(_module(module, what, folder or Path.cwd()), attribute, None)
    if found is None:
        raise UserError(f"{what} {name}: the module {module} has no {attribute}")
    return check(found, base, f"{what} {name}")


def check(found: object, base: type | tuple[type, ...], what: str) -> type:
    """``found``, if it is a class below ``base``.

    Raises:
        UserError: it is a function, an object or another class.
    """
    bases = base if isinstance(base, tuple) else (base,)
    if not isinstance(found, type) or not issubclass(found, bases):
        names = " or ".join(f"{one.__module__}.{one.__qualname__}" for one in bases)
        raise UserError(f"{what} is no subclass of {names}; derive it from there")
    return found


def _module(name: str, what: str, folder: Path) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that it hides nothing
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"there is no module {error.name} for the {what}; it is looked for on Python's path and in {folder}"
            ) from error
        raise UserError(f"the {what} cannot be imported: {name} needs the module {error.name}") from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}, line {place.lineno}"
        raise UserError(f"the {what} cannot be imported: {type(error).__name__}: {error} ({where})") from error
