"""What a provider takes when nobody says otherwise: the process's own storage, its keys, the first installed transport."""

import hashlib
import json
import os
from typing import Final

from ._account import Account
from ._clock import Clock
from ._options import ProviderOptions, check_credentials, check_options
from ._server_clock import ServerClock
from .environments import Environment
from .errors import ConfigurationError
from .models import Credentials
from .storage import KeyRing, MemoryStorage, Storage, from_url
from .transport import Transport, first_installed

__all__ = [
    "PROCESS_STORAGE",
    "SESSIONS_OPENED",
    "account_for",
    "account_key",
    "options_from_env",
    "private_slot",
    "session_opened",
]

PROCESS_STORAGE: Final = MemoryStorage()
"""Where a provider without a storage of its own keeps its session: adapters built from equal credentials share it."""

SESSIONS_OPENED: Final[set[tuple[int, str]]] = set()
"""Process and account key of every login granted here, for the policy `login="once"`."""

_SALT: Final = os.urandom(16)


def account_for(
    credentials: Credentials,
    environment: Environment,
    *,
    storage: Storage | str | None,
    transport: Transport | None,
    timeout: float,
    clock: Clock,
) -> Account:
    """Return the account behind a provider; see `TokenProvider` for the arguments, and for what is wrong with them."""
    check_credentials(credentials)
    check_options(storage=storage, transport=transport, timeout=timeout, clock=clock)
    own = storage is None
    return Account(
        credentials=credentials,
        environment=environment,
        storage=PROCESS_STORAGE
        if storage is None
        else from_url(storage)
        if isinstance(storage, str)
        else storage,
        key=account_key(environment, credentials),
        slot=private_slot(credentials) if own else str(credentials.cid or ""),
        transport=transport or first_installed(),
        clock=clock,
        server=ServerClock(clock),
        timeout=timeout,
    )


def account_key(environment: Environment, credentials: Credentials) -> str:
    """Return the key of an account's record: environment and user name. Not secret."""
    return f"{environment.origin}{environment.path} {credentials.name}"


def private_slot(credentials: Credentials) -> str:
    """Return where a token lies in the process's own storage: other credentials share the ledger, but not the session.

    Salted by process and never stored: it identifies the credentials without betraying them.
    """
    who = credentials
    fields = [
        who.password,
        who.app_id,
        who.app_version,
        str(who.cid),
        who.sec,
        who.device_id,
        who.organization,
    ]
    return hashlib.sha256(_SALT + json.dumps(fields).encode()).hexdigest()


def session_opened(key: str) -> tuple[int, str]:
    """Return the entry of this process in `SESSIONS_OPENED`."""
    return os.getpid(), key


def options_from_env(options: ProviderOptions) -> ProviderOptions:
    """Return the options with what `TRADOVATE_ENVIRONMENT` and `TRADOVATE_STORAGE` say where they say nothing.

    A storage that is named by its URL, here or there, is sealed with the keys in `TRADOVATE_STORAGE_KEYS`, if that is set.

    Raises:
        ConfigurationError: That variable is empty, or there are keys and nothing says which storage: what got lost on its
            way must not end in an open storage, or in none that is shared.
    """
    merged = options.copy()
    if environment := os.environ.get("TRADOVATE_ENVIRONMENT"):
        merged.setdefault("environment", environment)
    if storage := os.environ.get("TRADOVATE_STORAGE"):
        merged.setdefault("storage", storage)
    sealed = {"TRADOVATE_STORAGE_KEYS", "TRADOVATE_STORAGE_KEYS_FILE"} & os.environ.keys()
    given = sorted(name for name in sealed if os.environ[name])
    if given and "storage" not in merged:
        raise ConfigurationError(
            f"{given[0]} is set, but no storage is named that the keys could seal.",
            None,
            "Name it in TRADOVATE_STORAGE or as `storage`, with storage=None for the process's own memory; or take the keys "
            "away.",
        )
    named = merged.get("storage")
    if sealed and isinstance(named, str):
        merged["storage"] = from_url(named, keys=KeyRing.from_env())
    return merged
