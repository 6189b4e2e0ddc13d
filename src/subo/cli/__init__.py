"""The command line: a file for each command. Only here is anything printed, and only here do flags have names."""

from subo.cli.entry import main

__all__ = ["main"]
