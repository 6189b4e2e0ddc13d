"""``python -m subo``."""

from subo.cli.entry import main

if __name__ == "__main__":
    main()
