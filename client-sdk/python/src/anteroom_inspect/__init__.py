"""Inspect AI model provider for models lent through Anteroom."""

__all__ = ["__version__"]
__version__ = "0.1.0"
