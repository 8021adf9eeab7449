"""``python -m windsock.cli``: the same as the ``windsock`` script."""

import sys

from windsock.cli import main

if __name__ == "__main__":
    sys.exit(main())
