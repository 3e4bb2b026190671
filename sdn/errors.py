"""Errors meant for people: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
from collections.abc import Callable

from .disk import SENTENCES, code, is_writer, sentence
from .waiting import sleep_while_waiting


class UserError(Exception):
    """A mistake the user can mend. Its text is the whole message; no traceback is shown at the door."""


def reason(error: BaseException) -> str:
    """What a library's exception says, in a line: the first of its text, or the name of its kind where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def door(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's entry point: returns its exit code and never shows a traceback for a user's mistake.

    :class:`UserError`, a file system that refuses (full, read-only, ...) and too little memory end with one line on
    stderr and code 2, Ctrl-C (with the text of the :class:`KeyboardInterrupt`) with code 130. Anything else is a bug
    of ours and keeps its traceback. Doors import torch inside, after :mod:`sdn.waiting`.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> int:
        sleep_while_waiting()
        _print_what_a_console_can()
        logging.raiseExceptions = False  # of a console that is gone print() tells; logging adds a traceback a line
        try:
            return main(*args, **kwargs) or 0
        except UserError as error:
            return _say(f"error: {error}", 2)
        except BrokenPipeError:
            with contextlib.suppress(Exception):  # else Python complains once more when it flushes at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _say("stopped: nobody reads the output any more", 141)
        except KeyboardInterrupt as stop:
            return _say(str(stop) or "stopped by the user", 130)
        except Exception as error:
            if (text := _explained(error)) is None:
                raise
            return _say(f"error: {text}", 2)

    return wrapped


def _say(text: str, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # a console on a full disk, or closed
        print(" ".join(text.split("\n")), file=sys.stderr, flush=True)
    return status


def _explained(error: Exception) -> str | None:
    """The sentence for an exception of a library that a user can do something about."""
    if isinstance(error, OSError) and error.errno in SENTENCES:
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        return sentence(error.errno, where, "read or write") if where else SENTENCES[error.errno]
    if type(error).__name__ == "SafetensorError" and code(error) is not None:
        return sentence(code(error), "a file of tensors")
    if is_writer(error):
        return sentence(code(error), "a checkpoint")
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in str(error):
        return "there is not enough memory; lower the batch size, or take a smaller model or data set"
    return None


def _print_what_a_console_can() -> None:
    """A character that an ASCII console has not is replaced, never an error; a console that is closed takes all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="replace")
