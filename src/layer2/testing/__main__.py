"""``python -m layer2.testing``: a simulation campaign."""

import sys

from layer2.testing._simulation_campaign import main

if __name__ == "__main__":
    sys.exit(main())
