"""The command ``python -m sdn.convert``; what it does stands in :mod:`sdn.fitting.convert`."""

import sys

from .waiting import sleep_while_waiting

if __name__ == "__main__":
    sleep_while_waiting()
    from .fitting.convert import main

    sys.exit(main())
