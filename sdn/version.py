"""The version of the whole repository; one place, read by the package and by every file that states where it came from."""

__version__ = "0.2.0"
