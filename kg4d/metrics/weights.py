"""`python -m kg4d.metrics.weights pull|list|verify`: the weights of networks (`kg4d.networks.weights`)."""

import sys

from kg4d.networks.weights import main

if __name__ == "__main__":
    sys.exit(main())
