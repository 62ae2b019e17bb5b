"""`python -m analyzer` is `wsclose`."""

from analyzer.cli import main

if __name__ == "__main__":
    main()
