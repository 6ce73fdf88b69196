"""The command line."""

import sys

from kdlosses.integrations.open_clip_train.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
