"""The values that users hand in and get out: frozen, typed, and unable to show a secret."""

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from ._guarded import Guarded
from .environments import Environment
from .errors import ConfigurationError

__all__ = ["AccessToken", "Budget", "Credentials", "Environment", "State", "Status", "Strikes"]

_TEXT_LIMIT = 64  # P§2: every text field of the login but `sec`
_SECRET_LIMIT = 8192
# The server's own limits per rolling hour (P§4.3); a budget may be stricter, never laxer.
_SERVER_FAILED_LOGINS = 5
_SERVER_RENEWALS = 15


@dataclass(frozen=True, slots=True)
class Credentials(Guarded):
    """A Tradovate user and API key, as `/auth/accesstokenrequest` wants them (P§2).

    Args:
        name: User name, at most 64 characters.
        password: The account's password or, better, the API key's own.
        app_id: The API key's nickname, exactly as it was created.
        app_version: Any text; sent as it is.
        cid: The API key's id. Digits are sent as a JSON number.
        sec: The API key's secret, at most 8,192 characters.
        device_id: Constant for this device and unique to it; without one, live accounts refuse orders.
        organization: Only for users of an organisation that asks for it; may be empty.
        hibp_check: Ask the server whether the password is known from a leak.

    Raises:
        ConfigurationError: A field is missing, too long or of the wrong type. No call was made.
    """

    name: str
    password: str = field(repr=False)
    app_id: str | None = None
    app_version: str | None = None
    cid: str | int | None = None
    sec: str | None = field(default=None, repr=False)
    device_id: str | None = None
    organization: str | None = field(default=None, kw_only=True)
    hibp_check: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("name", "password", "app_id", "app_version", "device_id", "organization", "sec"):
            value = getattr(self, name)
            if value is not None or name in ("name", "password"):
                _check_text(name, value)
        if self.cid is not None:
            if isinstance(self.cid, bool) or not isinstance(self.cid, (int, str)):
                raise ConfigurationError(
                    f"Credentials.cid must be a number or text, not {type(self.cid).__name__}."
                )
            _check_text("cid", str(self.cid))
        if self.hibp_check not in (None, True, False):
            raise ConfigurationError("Credentials.hibp_check is True, False or None.")

    @classmethod
    def from_env(cls, prefix: str = "TRADOVATE_") -> Self:
        """Return the credentials that the environment variables name.

        Reads `NAME` (or `USERNAME`), `PASSWORD`, `APP_ID`, `APP_VERSION`, `CID`, `SEC` (or `SECRET`) and `DEVICE_ID`
        under the prefix; each also with `_FILE` behind it, naming a file that holds the value (one trailing newline is
        dropped). Blocks only on those files.

        Args:
            prefix: What their names begin with.

        Raises:
            ConfigurationError: A variable is missing, named twice, or its file cannot be read.
        """
        found = {
            "name": _variable(prefix, "NAME", "USERNAME"),
            "password": _variable(prefix, "PASSWORD"),
            "app_id": _variable(prefix, "APP_ID"),
            "app_version": _variable(prefix, "APP_VERSION"),
            "cid": _variable(prefix, "CID"),
            "sec": _variable(prefix, "SEC", "SECRET"),
            "device_id": _variable(prefix, "DEVICE_ID"),
        }
        for name in ("name", "password"):
            if found[name] is None:
                raise ConfigurationError(f"The environment variable {prefix}{name.upper()} is not set.")
        return cls(**found)  # type: ignore[arg-type]  # name and password were just checked

    def secrets(self) -> tuple[str, ...]:
        """Return every value in here that must not be shown, longest first, for whoever scrubs a text."""
        return tuple(sorted(filter(None, (self.password, self.sec)), key=len, reverse=True))


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"Credentials.{name} must be text, not {type(value).__name__}.")
    if not value and name != "organization":
        raise ConfigurationError(f"Credentials.{name} is empty.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigurationError(f"Credentials.{name} was not decoded from valid text.")
    limit = _SECRET_LIMIT if name == "sec" else _TEXT_LIMIT
    if len(value) > limit:
        raise ConfigurationError(f"Credentials.{name} is longer than the server's {limit} characters.")


def _variable(prefix: str, *names: str) -> str | None:
    found: dict[str, str] = {}
    for name in names:
        if value := os.environ.get(prefix + name):
            found[prefix + name] = value
        if path := os.environ.get(f"{prefix}{name}_FILE"):
            try:
                found[f"{prefix}{name}_FILE"] = Path(path).read_text(encoding="utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"The file that {prefix}{name}_FILE names cannot be read: {type(error).__name__}."
                ) from None
    if len(found) > 1:
        raise ConfigurationError(f"{' and '.join(sorted(found))} are both set; set one of them.")
    return next(iter(found.values()), None)


@dataclass(slots=True)
class Strikes:
    """What answers said against a token: shared by every stack that uses it."""

    count: int = 0
    """How many in a row; see `TokenProvider.report`."""
    moved: bool = False
    """Whether one said that the account has moved, so that the hosts were asked for anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken(Guarded):
    """One access token, never changed after it was granted; a renewal makes another one.

    Neither `repr`, `str`, `format` nor a log line shows it; pickling it fails. `value`, `md_value` and `authorization`
    are the secrets in the clear, for whoever sends them.
    """

    value: str = field(repr=False)
    """The token itself: opaque, do not decode it."""
    md_value: str | None = field(default=None, repr=False)
    """The token for market data sockets, where the server gave one."""
    authorization: str = field(init=False, repr=False, compare=False)
    """The ready value of an `Authorization` header."""
    expires_at: dt.datetime
    """When the server stops taking it: aware, UTC, by the server's clock."""
    issued_at: dt.datetime
    """When the server granted it: aware, UTC, by the server's clock."""
    generation: int = 1
    """1 for the account's first token and one more for each grant after it, in all processes that share a storage."""
    user_id: int | None = None
    """The user's number, where the server gave one."""
    name: str = ""
    """The user's name, as the server writes it."""
    device_id: str | None = None
    """The device it was granted to; whoever adopts it from a storage may run on another one."""
    known_expiry: bool = True
    """False if the server's expiry lay in the past on arrival: then the token is used until it is refused."""
    hosts: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The hosts that the server assigned (its `apiHosts`), merged over all its answers. P§1.2"""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The other, non-secret fields of the server's answer."""
    # For the package's own use, and so not in the reference.
    strikes: Strikes = field(default_factory=Strikes, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "authorization", f"Bearer {self.value}")
        object.__setattr__(self, "hosts", MappingProxyType(dict(self.hosts)))
        object.__setattr__(self, "details", MappingProxyType(dict(self.details)))

    @property
    def lifetime(self) -> float:
        """Seconds from the grant to the end."""
        return (self.expires_at - self.issued_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent in a rolling hour, by all processes that share a storage together.

    Args:
        failed_logins: Logins that were refused or whose answer got lost. The server locks the account at 5 (P§4.3).
        logins: Granted logins; each opens a session and may close somebody else's.
        renewals: Renewals, granted ones included. The server stops at 15 (P§4.3).

    Raises:
        ConfigurationError: A number is below 1 or above what the server allows.
    """

    failed_logins: int = 3
    logins: int = 5
    renewals: int = 12

    def __post_init__(self) -> None:
        limits = {"failed_logins": _SERVER_FAILED_LOGINS, "logins": None, "renewals": _SERVER_RENEWALS}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"Budget.{name} must be a whole number from 1.")
            if limit is not None and value > limit:
                raise ConfigurationError(
                    f"Budget.{name} is {value}, but the server itself stops at {limit} an hour."
                )


State = Literal["absent", "fresh", "stale", "held", "closed"]
"""See `Status.state`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a provider and its storage hold at one moment; it shows no secret."""

    state: State
    """fresh: in use, nothing to do. stale: in use, a renewal is due. absent: none, the next caller makes one. held: none,
    and none before `hold_until`. closed: the provider is closed."""
    expires_at: dt.datetime | None
    """Aware, UTC: when the token ends."""
    renews_at: dt.datetime | None
    """Aware, UTC: when this process means to renew it."""
    generation: int
    """Of the newest token ever granted; 0 before the first."""
    failed_logins: int
    """Logins that were refused or whose answer got lost, in the rolling hour."""
    logins: int
    """Granted logins in the rolling hour."""
    renewals: int
    """Renewals in the rolling hour, granted ones included."""
    hold: str | None
    """Why nothing may be sent now, in words; None if nothing forbids it."""
    hold_until: dt.datetime | None
    """Aware, UTC: when that ends."""
    last_event: str | None
    """The newest event of this provider, in words."""
    hosts: Mapping[str, str]
    """Where requests go, by key: the well-known hosts, and the assigned ones over them."""
    storage: str
    """What kind of storage this is, without its secrets."""
    last_event_at: dt.datetime | None = None
    """Aware, UTC, by this machine's clock: when `last_event` happened."""
    evicted_at: dt.datetime | None = None
    """Aware, UTC: when the server last ended a session of this user early, or granted the login after that; as far as any
    process that shares the storage knows."""
