"""Errors meant for people: one sentence that says what is wrong and what to do."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable

from .waiting import sleep_while_waiting


class UserError(Exception):
    """A mistake the user can mend. Its text is the whole message; no traceback is shown at the door."""


def door(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's entry point: returns its exit code and never shows a traceback for a user's mistake.

    :class:`UserError` and a full disk end with one line on stderr and code 2, Ctrl-C with code 130;
    anything else is a bug of ours and keeps its traceback. Doors import torch inside, after :mod:`sdn.waiting`.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> int:
        sleep_while_waiting()
        try:
            return main(*args, **kwargs) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" while writing {error.filename}" if error.filename else ""
            print(f"error: the disk is full{where}; free some space and run again", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped by the user", file=sys.stderr)
            return 130

    return wrapped
