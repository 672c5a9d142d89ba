"""``python -m apyfal``: the command line."""

from __future__ import annotations

import sys

from apyfal.cli import main

sys.exit(main())
