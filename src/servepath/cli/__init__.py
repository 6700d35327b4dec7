"""The command line over the library: the same names, arguments and results as the Dagger functions."""

from servepath.cli.app import main

__all__ = ["main"]
