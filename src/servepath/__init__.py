"""servepath: one model, two serving paths, one pipeline."""

__version__ = "0.1.0"
"""That of `pyproject.toml`; to ask the installed package's metadata for it takes 10 ms, a twentieth of a short push."""
