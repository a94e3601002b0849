"""The rules that the emulated server plays by: one frozen dataclass, every open question of P§9 a switch in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

_CHOICES: dict[str, tuple[object, ...]] = {
    "renewal_token": ("new", "same"),
    "refusal_style": ("200", "401", "400", "403"),
    "missing_header_status": (404, 401),
    "unauthorized_body": ("json", "text", "empty", "large"),
    "kind": (None, "demo", "live"),
    "evicted_style": ("408", "429", "500", "502", "401"),
    "evicted_renewals": ("401", "like calls"),
    "count_by": ("ip", "user"),
    "failed_login_excess": ("lockout", "penalty", "captcha", "disguised"),
    "renewal_excess": ("penalty", "lockout", "captcha"),
    "lockout_status": (429, 423),
    "lockout_scope": ("auth", "all"),
    "retry_after": ("none", "seconds", "date"),
    "expiry_offset_style": ("Z", "+00:00", "naive"),
    "wrong_host": (None, "307", "421", "404"),
    "login_step": ("none", "mfa", "violations"),
}
_TEXT_FIELDS = ("refusal_style", "evicted_style", "evicted_renewals", "wrong_host")


@dataclass(frozen=True)
class Rules:
    """How the server behaves; times and delays in seconds. The defaults are what the sources measured or document.

    Attributes:
        kind: Which environment it plays: auth/me is an error on "demo" (P§1.3); None serves what either does.
        lifetime: How long a token lives from its grant or renewal (P§9.1).
        max_sessions: Live sessions a user may hold; one login more closes the oldest (P§5.1, P§9.20).
        renewal_token: Whether a renewal gives a "new" string or keeps the "same" one (P§9.3).
        old_token_grace: How long the replaced token still works; None lets it live to its own end (P§9.4).
        token_in_renewal: False leaves accessToken out of a granted renewal (P§9.28).
        md_token_on_renewal: Whether a renewal carries mdAccessToken (P§9.5).
        refusal_style: Wrong credentials are answered "200" with errorText, "401" with error and message, or "400" or
            "403" with errorText (P§9.6).
        missing_header_status: Answer to a call without an Authorization header, 404 or 401 (P§9.9).
        unauthorized_body: Body of a 401: "json", "text", "empty" or "large", which is 4 MB of text (P§9.10).
        early_401: Refuse an upload before its body was read, rather than after.
        evicted_style: What a call with an evicted session's token meets until that token's end (P§9.19).
        evicted_renewals: What its renewal meets: "401", or "like calls" whatever its calls do (P§9.19).
        hour: The window of the limits, and how long a lock-out lasts (P§4.3). Shorten it to see both ends.
        count_by: Whether limits and their lock-outs concern one "ip" or one "user" (P§9.17).
        ip_header: A request header that overrides the peer address in those counts.
        failed_login_limit: Failed logins that are tolerated in the window; the next login crosses it (P§4.3).
        failed_login_excess: What follows: "lockout", "penalty", "captcha" (a penalty nobody can serve), or
            "disguised", where good credentials are refused like bad ones (P§3.1, P§9.7, P§9.11).
        renewal_limit: Renewals, granted or not, that are tolerated in the window (P§4.3).
        renewal_excess: What follows: "penalty", "lockout" or "captcha".
        penalty_seconds: The p-time of penalties for crossing a limit (P§4.3).
        ticket_required: True lets a penalized client back in only with its ticket; False also after the wait (P§9.13).
        lockout_status: 429 or 423 (P§9.16).
        lockout_warning: True answers the first request of a lock-out with 423, the others as above (P§3.2).
        lockout_extends: True starts the lock-out anew with every request made during it (P§9.16).
        lockout_scope: "auth" closes login and renewal only, "all" the ordinary calls as well.
        retry_after: Whether 423 and 429 of a lock-out carry a Retry-After header, and in which form.
        login_delay: How long the server thinks before it decides about a login.
        renewal_delay: The same, for a renewal.
        call_delay: How long an ordinary call takes once it was let in.
        fraction_digits: Digits of expirationTime after the second, 0 to 9; -1 leaves the seconds out too (P§9.32).
        expiry_offset_style: "Z", "+00:00", or "naive" for none at all (P§9.32).
        clock_offset: How far the server's clock is ahead of the real one, in Date and expirationTime alike (P§9.1).
        send_date: False sends no Date header, and closes the connection after every answer.
        api_hosts: The apiHosts object of grants; None leaves it out (P§1.2, P§9.22).
        wrong_host: How an ordinary call to a host that is not ours is answered: "307", "421", "404" without a body,
            or None, which serves it (P§1.2, P§9.22).
        wrong_host_renewals: True answers a renewal there alike; otherwise it is served whatever its host.
        own_hosts: Host names, with or without a port, that are ours; empty means the values of api_hosts. A 307 points
            to the first.
        accept_form: True takes a form-encoded login too (P§9.27).
        login_step: "mfa" or "violations" answers a correct login with neither a token nor an error (P§9.29).
        enforce_device: True refuses orders of a session whose login named another device, or none (P§2.1).
        user_status: The userStatus of grants (P§9.30).
        hibp_hint: The hibpHint of grants, None for none (P§9.31).
        extra_fields: Merged into every grant last, so that any field can be replaced (P§9.28, P§9.33).
        omit_fields: Fields left out of every grant.

    Raises:
        ValueError: A switch has none of its documented values.
    """

    kind: Literal["demo", "live"] | None = None
    lifetime: float = 4800.0
    max_sessions: int = 2
    renewal_token: Literal["new", "same"] = "new"
    old_token_grace: float | None = 0.0
    token_in_renewal: bool = True
    md_token_on_renewal: bool = True
    refusal_style: Literal["200", "401", "400", "403"] = "200"
    missing_header_status: Literal[404, 401] = 404
    unauthorized_body: Literal["json", "text", "empty", "large"] = "json"
    early_401: bool = False
    evicted_style: Literal["408", "429", "500", "502", "401"] = "408"
    evicted_renewals: Literal["401", "like calls"] = "401"
    hour: float = 3600.0
    count_by: Literal["ip", "user"] = "ip"
    ip_header: str = "X-Forwarded-For"
    failed_login_limit: int = 5
    failed_login_excess: Literal["lockout", "penalty", "captcha", "disguised"] = "lockout"
    renewal_limit: int = 15
    renewal_excess: Literal["penalty", "lockout", "captcha"] = "penalty"
    penalty_seconds: float = 15.0
    ticket_required: bool = False
    lockout_status: Literal[429, 423] = 429
    lockout_warning: bool = False
    lockout_extends: bool = False
    lockout_scope: Literal["auth", "all"] = "auth"
    retry_after: Literal["none", "seconds", "date"] = "none"
    login_delay: float = 0.0
    renewal_delay: float = 0.0
    call_delay: float = 0.0
    fraction_digits: int = 3
    expiry_offset_style: Literal["Z", "+00:00", "naive"] = "Z"
    clock_offset: float = 0.0
    send_date: bool = True
    api_hosts: Mapping[str, str] | None = None
    wrong_host: Literal["307", "421", "404"] | None = None
    wrong_host_renewals: bool = False
    own_hosts: tuple[str, ...] = ()
    accept_form: bool = False
    login_step: Literal["none", "mfa", "violations"] = "none"
    enforce_device: bool = False
    user_status: str = "Active"
    hibp_hint: str | None = None
    extra_fields: Mapping[str, Any] = field(default_factory=dict)
    omit_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON and command lines give 401 where the switch is "401", and lists for tuples.
        for name in _TEXT_FIELDS:
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else str(value))
        for name in ("own_hosts", "omit_fields"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {choices}, not {getattr(self, name)!r}")
        if self.fraction_digits not in range(-1, 10):
            raise ValueError(f"fraction_digits is -1 to 9, not {self.fraction_digits!r}")

    def changed(self, **changes: Any) -> Rules:
        """These rules with some replaced; does not block.

        Raises:
            ValueError: There is no such rule, or the value is none of its documented ones.
        """
        unknown = sorted(set(changes) - {each.name for each in fields(self)})
        if unknown:
            raise ValueError(f"no such rule: {', '.join(unknown)}")
        return replace(self, **changes)
