"""The one place where aiohttp is imported, so that its absence is explained once."""

try:
    from aiohttp import WSMessage, WSMsgType, web
except ImportError as error:
    raise ImportError("the emulator needs aiohttp: pip install 'tradovate-auth[emulator]'") from error

__all__ = ["WSMessage", "WSMsgType", "web"]
