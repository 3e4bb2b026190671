"""The command ``python -m sdn.outdo``; what it does stands in :mod:`sdn.fitting.outdo`."""

import sys

from .waiting import sleep_while_waiting

if __name__ == "__main__":
    sleep_while_waiting()
    from .fitting.outdo import main

    sys.exit(main())
