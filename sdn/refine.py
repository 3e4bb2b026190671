"""The command ``python -m sdn.refine``; what it does stands in :mod:`sdn.fitting.refine`."""

import sys

from .fitting.refine import main

if __name__ == "__main__":
    sys.exit(main())
