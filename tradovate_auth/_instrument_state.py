"""Who is instrumented at this moment, and what was wrapped for that. `instrumentation` is the public face of this.

There are two locks. The one around the wrapping is taken by hooks, in whatever thread imports a library and in the middle of
that import, so nothing is imported while it is held. The other one is for the callers of `instrument` alone; and a provider is
closed after it was given back, because that may wait for a login.
"""

import contextlib
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final, NamedTuple

import wrapt

from ._overlay import CLIENTS, EVERYWHERE, LIBRARIES, Overlay
from .errors import ConfigurationError

__all__ = ["STATE", "Asked", "State", "library_of"]

_OLDEST: Final = {"aiohttp": (3, 12, 4)}
"""Versions before these are left alone: they may have what is wrapped, and would fail in the middle of a request."""

_CLASSES: Final = {
    "requests": ("Session",),
    "httpx": ("Client", "AsyncClient"),
    "httpx2": ("Client", "AsyncClient"),
    "aiohttp": ("ClientSession",),
}


class _Point:
    """One attribute of a library's class, and our wrapper around it.

    Whether it is wrapped is read off the attribute each time, because others change it as well: OpenTelemetry, taking its own
    wrapper off, leaves a bound copy of ours behind; a double may hide ours and put it back later. A wrapper of ours that
    cannot be taken away, because something that is no wrapt wrapper lies on it, lets everything pass until the next time.
    """

    def __init__(self, target: type, name: str, wrapper: Callable[..., Any]) -> None:
        getattr(target, name)  # an AttributeError now is better than one half-way
        self._target = target
        self._name = name
        self._wrapper = wrapper

    def put(self) -> None:
        """Wrap it, unless it is; below the wrappers of others, as far as these are wrapt's.

        OpenTelemetry takes off what is outermost, whosever it is.
        """
        if self._ours() is not None:
            return
        above, current = None, self._current()
        while isinstance(current, wrapt.BaseObjectProxy):
            above, current = current, current.__wrapped__
        if above is None:
            wrapt.wrap_function_wrapper(self._target, self._name, self._wrapper)
        else:
            above.__wrapped__ = wrapt.FunctionWrapper(current, self._wrapper)

    def take(self) -> None:
        """Restore it as far as that is possible."""
        with contextlib.suppress(wrapt.WrapperNotOutermostError):
            while (ours := self._ours()) is not None:
                wrapt.unwrap_object(self._target, self._name, ours)

    def _ours(self) -> Any:
        return wrapt.find_wrapper(self._current(), predicate=self._is_ours)

    def _current(self) -> Any:
        return wrapt.resolve_path(self._target, self._name)[2]

    def _is_ours(self, entry: Any) -> bool:
        return getattr(entry, "_self_wrapper", None) is self._wrapper


class Asked(NamedTuple):
    """What `instrument` was called with: the same again joins, anything else is a mistake."""

    source: object
    libraries: frozenset[str]
    logins: str
    insecure: str
    on_event: object

    def joins(self, first: "Asked") -> bool:
        """Return whether this is the same as what was asked for first. Without a listener it leaves that one's."""
        return first == (self if self.on_event is not None else self._replace(on_event=first.on_event))


class State:
    """What is instrumented in this process. Any thread."""

    def __init__(self) -> None:
        self.renew_locks()
        self._asked: Asked | None = None
        self._active: Overlay | None = None
        self._holders = 0
        self._single: dict[int, Overlay] = {}
        self._points: dict[str, list[_Point]] = {}
        self._hooked: set[str] = set()

    def renew_locks(self) -> None:
        """Make both locks: in a forked child another thread of the parent may have held one."""
        self._entering, self._wrapping = threading.Lock(), threading.Lock()

    def enter(self, asked: Asked, make: Callable[[], Overlay]) -> Overlay:
        """Lay an overlay over all clients, or join the one that lies there.

        Raises:
            ConfigurationError: It is another one.
        """
        with self._entering:
            if self._active is None:
                self._active, self._asked = make(), asked
                for library in asked.libraries:
                    EVERYWHERE[library] = self._active
            elif self._asked is None or not asked.joins(self._asked):
                raise ConfigurationError(
                    "Clients are instrumented already, in another way or with another source.",
                    None,
                    "Call uninstrument() first, or instrument() with the same arguments.",
                )
            self._holders += 1
            overlay = self._active
        for library in sorted(asked.libraries):
            self._watch(library, overlay)
        return overlay

    def leave(self, overlay: Overlay) -> None:
        """Undo one `enter`; the last one takes the overlay away, also from single clients."""
        with self._entering:
            if self._active is not overlay:
                return
            self._holders -= 1
            if self._holders:
                return
            self._active = self._asked = None
            EVERYWHERE.clear()
            self._single.pop(id(overlay), None)
            for covered in CLIENTS.values():
                covered.drop_all(overlay)
        self._finish([overlay])

    def cover(self, client: object, make: Callable[[], Overlay], *, join: bool) -> Overlay:
        """Lay an overlay over one client: with `join`, the one that lies over all, if there is one.

        Raises:
            ConfigurationError: It is no client of any library.
        """
        library = library_of(client)
        with self._entering:
            overlay = self._active if join and self._active is not None else make()
            CLIENTS[library].put(client, overlay)
            self._forget_dead()
            self._single[id(overlay)] = overlay
        self._watch(library, overlay)
        return overlay

    def uncover(self, client: object, overlay: Overlay) -> None:
        """Undo one `cover`; a client that was covered anew since keeps what it has."""
        with self._entering:
            for covered in CLIENTS.values():
                covered.drop(overlay, client)
            ended = self._single.pop(id(overlay), None) is not None and overlay is not self._active
        self._finish([overlay] if ended else [])

    def clear(self) -> None:
        """Take everything away."""
        with self._entering:
            ended = [*self._single.values(), *([] if self._active is None else [self._active])]
            self._active, self._asked, self._holders = None, None, 0
            self._single.clear()
            EVERYWHERE.clear()
            for covered in CLIENTS.values():
                covered.drop_all()
        self._finish(ended)

    def _forget_dead(self) -> None:
        """Drop the overlays of clients that are gone, but for those with a provider to close: somebody may still ask that."""
        over = {id(overlay) for covered in CLIENTS.values() for overlay in covered.over()}
        for key, overlay in list(self._single.items()):
            if key not in over and overlay._own is None:  # noqa: SLF001
                del self._single[key]

    def _finish(self, ended: Iterable[Overlay]) -> None:
        for library in LIBRARIES:
            self._refresh(library)
        for overlay in ended:
            overlay.close()

    def _watch(self, library: str, overlay: Overlay) -> None:
        """Wrap a library now, or as soon as somebody imports it."""
        with self._wrapping:
            waiting = library in self._hooked
            self._hooked.add(library)
        if library in self._points:
            self._refresh(library)
        elif sys.modules.get(library) is not None:
            self._imported(library, overlay)
        elif not waiting:
            wrapt.register_post_import_hook(
                lambda _: self._imported(library, EVERYWHERE.get(library)), library
            )

    def _imported(self, library: str, overlay: Overlay | None) -> None:
        """Wrap a library that has been imported; tell whose overlay lies over it if that is not possible."""
        try:
            # By its name: what another thread is still importing is waited for here.
            module = importlib.import_module(library)
            _refuse_old(library, module)
            found = _points_of(library, module)
        except (ImportError, AttributeError) as error:
            if overlay is not None:
                overlay.warn(_left_alone(library, error))
            return
        with self._wrapping:
            self._points.setdefault(library, found)
        self._refresh(library)

    def _refresh(self, library: str) -> None:
        """Wrap or restore a library, whichever it should be now."""
        with self._wrapping:
            wanted = library in EVERYWHERE or len(CLIENTS[library]) > 0
            for point in self._points.get(library, ()):
                if wanted:
                    point.put()
                else:
                    point.take()


STATE: Final = State()
"""The process's own: also where `instrumentation` runs as a program and is there twice."""

if hasattr(os, "register_at_fork"):  # pragma: no branch  # the other way on Windows
    os.register_at_fork(after_in_child=STATE.renew_locks)


def library_of(client: object) -> str:
    """Return which library a client is of.

    Raises:
        ConfigurationError: It is of none.
    """
    for library, names in _CLASSES.items():
        module = sys.modules.get(library)
        if module is not None and isinstance(client, _classes(module, names)):
            return library
    raise ConfigurationError(
        f"{type(client).__name__} is no client that can be instrumented.",
        None,
        "Pass a requests.Session, an httpx or httpx2 client, or an aiohttp.ClientSession.",
    )


def _classes(module: ModuleType, names: tuple[str, ...]) -> tuple[type, ...]:
    found = (getattr(module, name, None) for name in names)
    return tuple(each for each in found if isinstance(each, type))


class _TooOldError(ImportError):
    """A library's version is known not to do."""


def _version(module: object) -> str:
    return str(getattr(module, "__version__", ""))[:32]


def _refuse_old(library: str, module: ModuleType) -> None:
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", _version(module))
    oldest = _OLDEST.get(library, ())
    if numbers is not None and tuple(int(each or 0) for each in numbers.groups()) < oldest:
        raise _TooOldError(f"{'.'.join(map(str, oldest))} or newer is needed")


def _left_alone(library: str, error: Exception) -> str:
    """Return that a library is not instrumented, and why, in words."""
    named = f"{library} {_version(sys.modules.get(library))}".strip()
    if isinstance(error, _TooOldError):
        return f"{named} cannot be instrumented: {error}"
    return f"{named} cannot be instrumented: it is not built like the versions that are known ({type(error).__name__})"


def _points_of(library: str, module: ModuleType) -> list[_Point]:
    if library == "requests":
        from ._instrument_requests import points
    elif library == "aiohttp":
        from ._instrument_aiohttp import points
    else:
        from ._instrument_httpx import points
    return [_Point(*point) for point in points(module)]
