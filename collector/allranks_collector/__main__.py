"""`python -m allranks_collector`: a collector, without the command line's dependencies."""

import sys

from allranks_bus.priority import import_stepping_back

if __name__ == "__main__":
    # A program's ranks may be starting beside it.
    sys.exit(import_stepping_back("allranks_collector.service").main(sys.argv[1:]))
