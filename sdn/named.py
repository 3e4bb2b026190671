"""Classes that a config or a file names, ``package.module.Class``: found, and checked before anything is called."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable

from .errors import UserError


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or `; there are A, B, C`: the end of a sentence about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names) or 'none'}"


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
