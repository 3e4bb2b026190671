"""The command ``python -m sdn.card``; what it does stands in :mod:`sdn.fitting.card`."""

import sys

from .fitting.card import main

if __name__ == "__main__":
    sys.exit(main())
