"""The version of the repository, in one place."""

__version__ = "0.2.0"
