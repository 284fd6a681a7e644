"""``python -m wfr_flows`` is the command ``wfr-flows``."""

import sys

from wfr_flows.cli import main

if __name__ == "__main__":
    sys.exit(main())
