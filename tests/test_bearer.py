"""What all adapters share: what an answer says of a host, and what an adapter is made from."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from values import NoTransport
from values import credentials as some_credentials
from values import token as some_token

from tradovate_auth import AccessToken, ConfigurationError, Environment, TokenProvider
from tradovate_auth._bearer import Bearer, Seen
from tradovate_auth._held import NOTHING, Held
from tradovate_auth.transport import Transport

DEMO, LIVE = Environment.of("demo"), Environment.of("live")


class OwnBearer(Bearer):
    """An adapter of no library."""

    def _own_transport(self) -> Transport:
        return NoTransport()


@dataclass
class Source:
    """A token source that is no provider."""

    environment: Environment = DEMO
    told: list[tuple[object, ...]] = field(default_factory=list)

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Return a token."""
        self.told.append(("get", timeout, min_ttl))
        return some_token()

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Return a token."""
        return self.get(None, min_ttl=min_ttl)

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """Take note."""
        self.told.append(("reject", token, method, path))
        return True

    def report(self, token: AccessToken, status: int) -> None:
        """Take note."""
        self.told.append(("report", token, status))


def answer(
    status: int,
    location: str = "",
    *,
    method: str = "GET",
    asked: str = "demo.tradovateapi.com",
    **headers: str,
) -> Seen:
    """Return an answer to a request that carried the token."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Seen(
        method,
        "https",
        asked,
        "/v1/x",
        some_token().authorization,
        status,
        {"Location": location, **named} if location else named,
    )


class TestMoves:
    """What an answer says of the host that gave it (P§1.2)."""

    @pytest.mark.parametrize(
        "to",
        [
            "https://org-b.tradovateapi.com/v1/x",
            "https://org-b.tradovateapi.com:443/v1/x",
            "https://ORG-B.tradovateapi.com/v1/x",
            "//org-b.tradovateapi.com/v1/x",
            "//org-b.tradovateapi.com:443/v1/x",
        ],
    )
    @pytest.mark.parametrize("status", [307, 308])
    def test_a_redirect_to_another_host_is_a_move(self, status: int, to: str) -> None:
        """307 and 308 to a host of ours, with or without the port that https implies."""
        for asked in ("demo.tradovateapi.com", "demo.tradovateapi.com:443"):
            assert OwnBearer(Source())._moved(some_token(), answer(status, to, asked=asked))

    @pytest.mark.parametrize(
        "to",
        [
            "https://org-b.tradovateapi.com:8443/v1/x",
            "http://org-b.tradovateapi.com/v1/x",
            "http://org-b.tradovateapi.com:443/v1/x",
            "https://demo.tradovateapi.com/v1/x",
            "https://demo.tradovateapi.com:443/v1/x",
            "https://DEMO.tradovateapi.com:443/v1/x",
            "https://md-demo.tradovateapi.com/v1/x",
            "https://evil.example/v1/x",
            "https://org-b.tradovateapi.com:99999999999/",
            "/v1/y",
            "",
        ],
    )
    def test_any_other_redirect_is_none(self, to: str) -> None:
        """Another port or scheme, the host itself in any spelling, one that is known, and anybody else's are no move."""
        bearer = OwnBearer(Source())
        for status in (307, 308):
            assert not bearer._moved(some_token(), answer(status, to))
        assert bearer._routes.sent_on == {}

    @pytest.mark.parametrize("status", [301, 302, 303])
    def test_other_statuses_are_no_move(self, status: int) -> None:
        """Only a redirect that keeps method and body speaks of the whole host."""
        assert not OwnBearer(Source())._moved(
            some_token(), answer(status, "https://org-b.tradovateapi.com/v1/x")
        )

    def test_once_per_token_and_for_reading_alone(self) -> None:
        """An order is never sent again for it, and leaves the next GET its chance; then it is enough for this token."""
        bearer, token = OwnBearer(Source()), some_token()
        assert not bearer._moved(token, answer(421, method="POST"))
        assert bearer._moved(token, answer(421, method="HEAD"))
        assert not bearer._moved(token, answer(421))
        assert not OwnBearer(Source(), route=False)._moved(some_token(), answer(421))

    def test_a_missing_page(self) -> None:
        """A 404 counts without a body, if hosts were ever assigned; only a GET without a length is worth a look."""
        bearer, token = OwnBearer(Source()), some_token(hosts={"demo": "d2.tradovateapi.com"})
        assert bearer._moved(
            some_token(hosts={"demo": "d2.tradovateapi.com"}), answer(404, Content_Length="0")
        )
        assert not bearer._moved(token, answer(404, Content_Length="1"))
        assert not bearer._moved(some_token(), answer(404, Content_Length="0"))
        assert bearer._unclear(token, answer(404))
        theirs = answer(404)._replace(carried="Bearer theirs")
        for clear in (answer(404, method="HEAD"), answer(404, Content_Length="0"), answer(403), theirs):
            assert not bearer._unclear(token, clear)
        assert not bearer._unclear(some_token(), answer(404))
        assert not OwnBearer(Source(), route=False)._unclear(token, answer(404))
        assert bearer._moved(token, answer(404), empty=True)
        assert not bearer._unclear(token, answer(404)), "once per token"

    def test_the_servers_last_word_counts(self) -> None:
        """From an assigned host that sends us on, requests go where it says; back again when that one says so; until another
        host is assigned. Whoever is asked by an older answer changes nothing.
        """
        demo, second, third = (f"{name}.tradovateapi.com" for name in ("demo", "d2", "d3"))
        bearer, token = OwnBearer(Source()), some_token(hosts={"demo": second})
        bearer._routes_for(token)
        for asked, to in ((second, demo), (demo, second), (second, demo), (third, second)):
            bearer._moved(token, answer(307, f"https://{to}/v1/x", asked=asked, method="POST"))
            expected = demo if asked == third else to
            assert {bearer._routes.find("https", name) for name in (demo, second)} == {expected}
        again = some_token(value="again", hosts={"demo": second}, generation=2)
        assert bearer._routes_for(again).find("https", second) == demo
        bearer._moved(again, answer(421, asked=demo, method="POST"))
        assert bearer._routes.find("https", demo) == second
        bearer._moved(again, answer(307, f"https://{demo}/v1/x", asked=second, method="POST"))
        moved = some_token(value="moved", hosts={"demo": third}, generation=3)
        assert bearer._routes_for(moved).find("https", demo) == third
        assert bearer._routes.sent_on == {}


class TestArguments:
    """What an adapter is made from."""

    def test_credentials_make_a_provider_of_its_own(self) -> None:
        """From credentials and options the adapter makes its provider, and closes it."""
        with OwnBearer(some_credentials(), environment="live", renewal="on-demand") as bearer:
            assert isinstance(bearer.provider, TokenProvider)
            assert bearer.provider.environment == LIVE
            assert repr(bearer).endswith("OwnBearer of <TokenProvider trader at live.tradovateapi.com>>")
        assert bearer.provider.status().state == "closed"

    def test_a_provider_that_was_handed_in_stays_open(self) -> None:
        """Whoever made the provider closes it."""
        with TokenProvider(some_credentials(), transport=NoTransport(), renewal="on-demand") as provider:
            with OwnBearer(provider) as bearer:
                assert bearer.provider is provider
            assert provider.status().state == "absent"

    def test_any_source_will_do(self) -> None:
        """Anything that hands out tokens can stand in for a provider; it is told of 401s."""
        source = Source()
        bearer = OwnBearer(source)
        assert bearer._rejected(some_token(), answer(401))
        assert source.told == [("reject", some_token(), "GET", "/v1/x")]
        bearer.close()

    def test_options_belong_to_credentials(self) -> None:
        """Options beside a provider would have no effect, so they are refused, by name."""
        with pytest.raises(ConfigurationError, match="handed in: environment, timeout"):
            OwnBearer(Source(), timeout=5.0, environment="live")

    @staticmethod
    def wrong(**options: Any) -> Any:
        """Return what no type checker lets pass."""
        return options

    def test_wrong_options_come_out_of_the_provider(self) -> None:
        """An option that no provider has is a TypeError, a wrong value a ConfigurationError."""
        with pytest.raises(TypeError, match="nosuch"):
            OwnBearer(some_credentials(), **self.wrong(nosuch=True))
        with pytest.raises(ConfigurationError, match="renewal is"):
            OwnBearer(some_credentials(), **self.wrong(renewal="sometimes"))

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variables make an adapter; options of the call win over them."""
        for name, value in {"NAME": "trader", "PASSWORD": "pw", "ENVIRONMENT": "live"}.items():
            monkeypatch.setenv(f"TRADOVATE_{name}", value)
        with OwnBearer.from_env() as bearer:
            assert bearer.provider.environment == LIVE
        with OwnBearer.from_env(environment="demo") as bearer:
            assert bearer.provider.environment == DEMO

    def test_a_base_has_no_transport(self) -> None:
        """The base alone has no library to send anything over."""
        with pytest.raises(NotImplementedError):
            Bearer(some_credentials())

    def test_sent_tokens_are_remembered(self) -> None:
        """The tokens that went out last are known by their header, eight of them; earlier hosts are carried along."""
        bearer = OwnBearer(Source())
        tokens = [some_token(value=f"t{n}", hosts={"demo": f"d{n}.tradovateapi.com"}) for n in range(10)]
        for token in tokens:
            assert bearer._routes_for(token).token is token
        assert [bearer._sent.get(token.authorization) for token in tokens] == [None, None, *tokens[2:]]
        assert bearer._routes.find("https", "d8.tradovateapi.com") == "d9.tradovateapi.com"
        assert bearer._routes_for(tokens[9]) is bearer._routes, "made once for each token"

    def test_routes_know_what_the_provider_holds(self) -> None:
        """Routes are made for the very thing that the provider holds, and anew when it holds something else."""
        token = some_token()
        with OwnBearer(some_credentials(), renewal="on-demand") as bearer:
            assert isinstance(bearer.provider, TokenProvider)
            assert bearer._routes_for(token).held is NOTHING
            for _ in range(2):
                bearer.provider._keeper.held = held = Held(token, math.inf, math.inf)
                assert bearer._routes_for(token).held is held
                assert bearer._routes_for(token) is bearer._routes


def test_what_is_no_source_is_named() -> None:
    """A dictionary of credentials is told from Credentials before anything is sent."""
    nonsense: Any = {"name": "trader"}
    with pytest.raises(ConfigurationError, match="is dict"):
        Bearer(nonsense)
