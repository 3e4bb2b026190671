"""The command ``python -m sdn.refine``; what it does stands in :mod:`sdn.fitting.refine`."""

import sys

from .waiting import sleep_while_waiting

if __name__ == "__main__":
    sleep_while_waiting()
    from .fitting.refine import main

    sys.exit(main())
