"""What closes at the end of a `with` statement: adapters, and providers at the end of an `async with` as well."""

from types import TracebackType
from typing import Self

__all__ = ["Closing", "ClosingOnLoops"]


class Closing:
    """Closes at the end of a `with` statement."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ClosingOnLoops(Closing):
    """Closes at the end of an `async with` statement too."""

    __slots__ = ()

    async def aclose(self) -> None:
        """Give up what it holds, without blocking the loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
