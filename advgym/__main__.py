"""`python -m advgym` is `advgym`."""

import sys

from advgym.cli import main

sys.exit(main())
