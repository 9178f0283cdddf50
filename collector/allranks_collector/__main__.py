"""`python -m allranks_collector`: a collector, without the command line's dependencies."""

import sys

from allranks_bus.priority import stepping_back

if __name__ == "__main__":
    with stepping_back():
        from allranks_collector.service import main
    sys.exit(main(sys.argv[1:]))
