"""Sessions and their tokens: who holds one, until when, and why it ended. No input or output, no locks, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from tradovate_auth.testing.emulator._records import SessionInfo, User, mint, short_hash
from tradovate_auth.testing.emulator._rules import Rules


class Standing(Enum):
    """What a token is worth at a moment."""

    GOOD = "good"
    GONE = "gone"  # unknown, lapsed, replaced or revoked
    EVICTED = "evicted"  # a later login closed its session before the token's end


@dataclass
class Token:
    """One token string, and until when it counts by the emulator's clock."""

    value: str = field(repr=False)
    session: Session = field(repr=False)
    expires_at: float


@dataclass
class Session:
    """One session; it keeps its id through renewals."""

    id: int
    user: User
    opened_at: float
    device_id: str | None
    token: Token = field(init=False, repr=False)
    md_token: str = field(init=False, repr=False)
    renewed_at: float | None = None
    renewals: int = 0
    ended_because: str | None = None

    def alive(self, now: float) -> bool:
        """Whether its current token is good."""
        return self.ended_because is None and now < self.token.expires_at

    def info(self, now: float) -> SessionInfo:
        """A snapshot."""
        alive = self.alive(now)
        return SessionInfo(
            id=self.id,
            user=self.user.name,
            token_hash=short_hash(self.token.value),
            alive=alive,
            opened_at=self.opened_at,
            renewed_at=self.renewed_at,
            expires_at=self.token.expires_at,
            renewals=self.renewals,
            device_id=self.device_id,
            ended_because=self.ended_because or (None if alive else "expired"),
        )


class Sessions:
    """Every session since the last reset. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._tokens: dict[str, Token] = {}
        self._md_tokens: dict[str, Session] = {}

    def all(self) -> tuple[Session, ...]:
        """Every session, the oldest first, ended ones included."""
        return tuple(self._sessions)

    def live(self, now: float, user: User | None = None) -> list[Session]:
        """The live sessions of one user or of all, the oldest first."""
        return [each for each in self._sessions if each.alive(now) and user in (None, each.user)]

    def open(
        self, user: User, device_id: str | None, now: float, rules: Rules
    ) -> tuple[Session, list[Session]]:
        """A new session, and those it closed: the user's oldest, down to ``max_sessions`` (P§5.1)."""
        session = Session(id=len(self._sessions) + 1, user=user, opened_at=now, device_id=device_id)
        self._sessions.append(session)
        self._issue(session, now + rules.lifetime)
        self._issue_md(session)
        live = self.live(now, user)
        closed = live[: max(0, len(live) - rules.max_sessions)]
        for each in closed:
            each.ended_because = "evicted"
        return session, closed

    def renew(self, session: Session, now: float, rules: Rules) -> None:
        """Extends a live session, with a new token or the same one (P§9.3), and lets the old one lapse (P§9.4)."""
        session.renewed_at = now
        session.renewals += 1
        old = session.token
        if rules.renewal_token == "same":
            old.expires_at = now + rules.lifetime
        else:
            self._issue(session, now + rules.lifetime)
            if rules.old_token_grace is not None:
                old.expires_at = min(old.expires_at, now + rules.old_token_grace)
        if rules.md_token_on_renewal:
            self._issue_md(session)

    def judge(self, token: str, now: float) -> tuple[Standing, Session | None]:
        """What a token is worth, and the session it belongs to."""
        known = self._tokens.get(token)
        if known is None:
            return Standing.GONE, None
        if now >= known.expires_at:
            return Standing.GONE, known.session
        if known.session.ended_because is None:
            return Standing.GOOD, known.session
        evicted = known.session.ended_because == "evicted"
        return (Standing.EVICTED if evicted else Standing.GONE), known.session

    def opens_socket(self, token: str, now: float) -> bool:
        """Whether a WebSocket may be authorised with this token; the market data token serves too (P§1.4)."""
        session = self._md_tokens.get(token)
        if session is not None:
            return session.alive(now)
        return self.judge(token, now)[0] is Standing.GOOD

    def revoke(self, now: float, user: User | None = None) -> int:
        """Ends the live sessions of one user or of all; returns how many."""
        live = self.live(now, user)
        for each in live:
            each.ended_because = "revoked"
        return len(live)

    def _issue(self, session: Session, expires_at: float) -> None:
        session.token = Token(mint(), session, expires_at)
        self._tokens[session.token.value] = session.token

    def _issue_md(self, session: Session) -> None:
        session.md_token = mint("MD-")
        self._md_tokens[session.md_token] = session
