"""What keeps a secret from leaving its process unnoticed."""

from typing import NoReturn, Self

__all__ = ["Guarded"]


class Guarded:
    """Copies are the object itself and pickling is refused, so that no secret leaves the process unnoticed."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not pickled, because it holds a secret: build it in the child process, and share "
            "the session through the storage"
        )
