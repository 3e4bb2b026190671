"""The command ``python -m sdn.card``; what it does stands in :mod:`sdn.fitting.card`."""

import sys

from .waiting import sleep_while_waiting

if __name__ == "__main__":
    sleep_while_waiting()
    from .fitting.card import main

    sys.exit(main())
