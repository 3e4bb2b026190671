"""The command ``python -m sdn.window``; what it does stands in :mod:`sdn.fitting.window`."""

import sys

from .waiting import sleep_while_waiting

if __name__ == "__main__":
    sleep_while_waiting()
    from .fitting.window import main

    sys.exit(main())
