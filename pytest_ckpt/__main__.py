"""`python -m pytest_ckpt train.yml`: see `pytest_ckpt.command`."""

from __future__ import annotations

import sys

from pytest_ckpt.command import main

if __name__ == "__main__":
    sys.exit(main())
