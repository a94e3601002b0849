"""What a provider takes when nobody says otherwise: the process's own storage, its keys, the first installed transport."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any, Final

from ._account import Account
from ._clock import Clock
from .environments import Environment
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

_SALT: Final = secrets.token_bytes(16)


def account_for(
    credentials: Credentials,
    environment: Environment,
    *,
    storage: Storage | str | None,
    transport: Transport | None,
    timeout: float,
    clock: Clock,
) -> Account:
    """Return the account behind a provider; see `TokenProvider` for the arguments."""
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


def options_from_env(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with what `TRADOVATE_ENVIRONMENT` and `TRADOVATE_STORAGE` say where they say nothing.

    A storage that is named by its URL, here or there, is sealed with the keys in `TRADOVATE_STORAGE_KEYS`, if that is set;
    an empty one is an error: a secret that got lost on its way must not end in an open storage.
    """
    found = {name: os.environ.get(f"TRADOVATE_{name.upper()}") for name in ("environment", "storage")}
    merged = {**{name: value for name, value in found.items() if value}, **options}
    sealed = {"TRADOVATE_STORAGE_KEYS", "TRADOVATE_STORAGE_KEYS_FILE"} & os.environ.keys()
    if sealed and isinstance(merged.get("storage"), str):
        merged["storage"] = from_url(merged["storage"], keys=KeyRing.from_env())
    return merged
