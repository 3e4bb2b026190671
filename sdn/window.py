"""The command ``python -m sdn.window``; what it does stands in :mod:`sdn.fitting.window`."""

import sys

from .fitting.window import main

if __name__ == "__main__":
    sys.exit(main())
