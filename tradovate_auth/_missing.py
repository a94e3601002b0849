"""The error for an adapter whose library is not installed."""

__all__ = ["missing_extra"]


def missing_extra(extra: str) -> ImportError:
    """Return the error that names the extra to install."""
    return ImportError(f"This adapter needs {extra}: pip install 'tradovate-auth[{extra}]'")
