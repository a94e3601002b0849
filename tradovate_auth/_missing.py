"""The error for whatever needs a library that is not installed."""

__all__ = ["missing_extra"]


def missing_extra(extra: str) -> ImportError:
    """Return the error that names the extra to install."""
    return ImportError(f"This needs the extra {extra}: pip install 'tradovate-auth[{extra}]'")
