"""`python -m prefect_together`: the command `prefect-together`."""

import sys

from prefect_together.cli.commands import main

sys.exit(main())
