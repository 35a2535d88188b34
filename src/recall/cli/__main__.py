"""`python -m recall.cli`: the command line where the console script is not on the path."""

import sys

from recall.cli import main

sys.exit(main())
