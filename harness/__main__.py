"""python -m harness: the same as clipkd."""

from harness.cli import main

if __name__ == "__main__":
    main()
