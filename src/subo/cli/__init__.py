"""The command line: one file per command. Nothing else prints anything or knows the names of flags."""

from subo.cli.entry import main

__all__ = ["main"]
