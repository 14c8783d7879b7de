"""`python -m advgym` is `advgym`."""

import sys

from advgym.cli.app import main

sys.exit(main())
