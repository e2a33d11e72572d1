"""``python -m parkingd`` is the command `parkingd`."""

from __future__ import annotations

import sys

from parkingd.cli.parkingd import main

if __name__ == "__main__":
    sys.exit(main())
