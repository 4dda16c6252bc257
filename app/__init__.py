"""aisle: product search that answers in about a millisecond."""

__version__ = "0.1.0"
