"""Classes that a config or a file names, ``package.module.Class``: found, and checked before anything is called.

Importing a module runs its code, and files come from anywhere. What the user writes, in a config, on a command line or
in Python, is the user's choice. What a checkpoint or a network file names is followed only if the user vouches for it
(:func:`require_allowed`, called by whoever reads such a file):

- it stands in the user's own configuration as well (:mod:`src.config` calls :func:`allow`),
- the command was given ``--allow package`` or ``--allow package.module.Class``, or the environment variable
  ``SDN_ALLOW`` holds it (several with commas),
- or the module is imported already, as in a notebook that has ``import package.module``.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import UserError


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or `; there are A, B, C`: the end of a sentence about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names) or 'none'}"


VARIABLE = "SDN_ALLOW"
_allowed: set[str] = set()


def is_dotted(name: object) -> bool:
    """Whether ``name`` is meant as ``package.module.Class``."""
    return isinstance(name, str) and "." in name


def allow(*names: str) -> None:
    """Vouch for these classes, modules or whole packages, whatever file names them, in this process."""
    _allowed.update(names)


class Allow(argparse.Action):
    """``parser.add_argument("--allow", action=Allow)``: :func:`allow` what is given; may be repeated."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        text = "package, module or class of yours that the file may name (may be given several times)"
        super().__init__(option_strings, dest, **{"help": text, "metavar": "NAME", **options})

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        allow(value)


def dotted_names(config: object) -> Iterator[str]:
    """Every dotted name under a key ``_name_`` or ``kind``, at any depth of nested mappings and lists."""
    if isinstance(config, Mapping):
        for key in ("_name_", "kind"):
            if is_dotted(config.get(key)):
                yield config[key]
        for part in config.values():
            yield from dotted_names(part)
    elif isinstance(config, (list, tuple)):
        for part in config:
            yield from dotted_names(part)


def require_allowed(config: object, file: object) -> None:
    """Refuse the description that ``file`` brought if it names a class nobody vouches for; imports nothing.

    Raises:
        UserError: with the option that vouches for it.
    """
    given = _allowed | {part.strip() for part in os.environ.get(VARIABLE, "").split(",") if part.strip()}
    for name in dotted_names(config):
        module = name.rpartition(".")[0]
        if module not in sys.modules and not any(name == part or name.startswith(f"{part}.") for part in given):
            raise UserError(
                f"{file} names {name}, code that is run only if you vouch for it: if you trust it, add "
                f"--allow {module} (or put {VARIABLE}={module} before the command, or import {module} first)"
            )


def resolve(name: str, base: type | tuple[type, ...], kind: str = "class") -> type:
    """The class ``package.module.Class``, a proper subclass of ``base`` (or of one of several).

    The module is imported, as ``import`` would; nothing in it is called, whatever it is, so a file that names a class
    cannot make us run another callable. The standard library is not imported for it: no class of ours derives there.

    Args:
        kind: what the class is to be, for the sentence of an error: "neuron", "data set".

    Raises:
        UserError: not a dotted name, not importable, no such name in it, or not a subclass of ``base``.
    """
    if not isinstance(name, str) or name.count(".") < 1 or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{kind} {name!r} is not the dotted name of a class; write package.module.Class")
    path, _, attribute = name.rpartition(".")
    bases = base if isinstance(base, tuple) else (base,)
    wanted = " or ".join(f"{b.__module__}.{b.__qualname__}" for b in bases)
    if path.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{kind} {name} is of Python's standard library, not a subclass of {wanted}")
    found = getattr(_module(path, name, kind), attribute, None)
    if found is None:
        raise UserError(f"{kind} {name}: the module {path} has no {attribute!r}{_classes(path, attribute, bases)}")
    if not isinstance(found, type) or not issubclass(found, bases) or found in bases:
        raise UserError(f"{kind} {name} is not a subclass of {wanted}; derive your class from it")
    return found


def _module(path: str, name: str, kind: str) -> object:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that it hides nothing
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
            raise UserError(
                f"{kind} {name} cannot be imported: there is no module {error.name}; install it, or run from the "
                "folder that holds it (or put that folder on PYTHONPATH)"
            ) from error
        raise UserError(f"{kind} {name} cannot be imported: {path} needs {error.name}, which is missing") from error
    except Exception as error:  # whatever a user's own module does wrong at import
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} {name} cannot be imported: {what} ({where.filename}, line {where.lineno})") from error


def _classes(path: str, attribute: str, bases: tuple[type, ...]) -> str:
    values = vars(sys.modules[path]).items()
    known = [n for n, v in values if isinstance(v, type) and issubclass(v, bases) and v not in bases]
    return suggestion(attribute, known) if known else ""
