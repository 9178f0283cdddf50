"""`python -m allranks_collector`: a collector, without the command line's dependencies."""

import sys

from allranks_collector.service import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
