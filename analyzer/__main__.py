"""`python -m analyzer` is `wsclose`."""

import os

# NumPy's linear algebra starts a thread for every core, which spin for 0.1 s; nothing here uses it
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from analyzer.cli import main

if __name__ == "__main__":
    main()
