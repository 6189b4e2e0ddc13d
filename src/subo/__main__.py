"""``python -m subo``."""

from subo.cli import main

if __name__ == "__main__":
    main()
