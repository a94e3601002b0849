"""Which origins get the header, and where requests go: whatever was assigned, and in whichever order."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from values import token as some_token

from tradovate_auth import Environment
from tradovate_auth._routes import Routes, location, split_host

DEMO, LIVE = Environment.of("demo"), Environment.of("live")
LOOPBACK = Environment("http://127.0.0.1:8000/v1")
STAGING = Environment("https://api.example.com:8443/v1")


def routes(
    environment: Environment = DEMO,
    hosts: Mapping[str, str] | None = None,
    earlier: Routes | None = None,
    *,
    route: bool = True,
) -> Routes:
    """Return the routes of a token with these assigned hosts, after those of an earlier token."""
    token = some_token(hosts=hosts) if hosts is not None else None
    return Routes(environment, token, earlier.earlier if earlier is not None else None, route=route)


def goes_to(found: Routes, url: str) -> str | None:
    """Return the host that a request to this URL goes to with our header, or None if it gets none."""
    parts = urlsplit(url)
    return found.find(parts.scheme, parts.netloc)


def straight(found: Routes, url: str) -> set[bool]:
    """Return what the three ways of naming an origin say to a request that goes where it says."""
    parts = urlsplit(url)
    ours = parts.scheme == found.scheme
    return {
        url.startswith(found.prefixes),
        ours and parts.netloc in found.netlocs,
        ours and (parts.hostname, parts.port) in found.hosts,
    }


class TestTrust:
    """Which origins get the header."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://demo.tradovateapi.com/v1/account/list",
            "https://md-demo.tradovateapi.com/v1",
            "https://replay.tradovateapi.com/",
            "https://DEMO.TradovateAPI.com/v1",
            "https://demo.tradovateapi.com:443/v1",
            "https://Demo.TradovateAPI.com:443/v1",
            "https://demo.tradovateapi.com",
            "https://demo.tradovateapi.com?x=1",
        ],
    )
    def test_well_known_hosts(self, url: str) -> None:
        """The hosts of the environment's kind get it, in any spelling, with or without the port of https."""
        assert goes_to(routes(), url) == str(urlsplit(url).hostname)

    @pytest.mark.parametrize(
        "url",
        [
            "http://demo.tradovateapi.com/v1",
            "https://demo.tradovateapi.com:80/v1",
            "https://demo.tradovateapi.com:8443/v1",
            "https://demo.tradovateapi.com:0443/v1",
            "https://demo.tradovateapi.com:/v1",
            "https://demo.tradovateapi.com./v1",
            "https://live.tradovateapi.com/v1",
            "https://md.tradovateapi.com/v1",
            "https://other.tradovateapi.com/v1",
            "https://tradovateapi.com/v1",
            "https://demo.tradovateapi.com@evil.example/v1",
            "https://demo.tradovateapi.com:443@evil.example/v1",
            "https://demo.tradovateapi.com%2f@evil.example/v1",
            "https://evil.example/demo.tradovateapi.com/v1",
            "https://evil.example#demo.tradovateapi.com/v1",
            "https://evil.example?https://demo.tradovateapi.com/v1",
            "https://demo.tradovateapi.com.evil.example/v1",
            "https://demo-tradovateapi.com/v1",
            "https://xdemo.tradovateapi.com/v1",
            "https://demo.tradovateapi.co/v1",
            "https://d\u0435mo.tradovateapi.com/v1",
            "https://demo\u3002tradovateapi.com/v1",
            "https://xn--dmo-tlc.tradovateapi.com/v1",
            "https://demo.tradovateapi.com\\@evil.example/v1",
            "https://user:pw@demo.tradovateapi.com/v1",
            "wss://demo.tradovateapi.com/v1",
            "//demo.tradovateapi.com/v1",
            "https:///v1",
            "",
        ],
    )
    def test_nobody_else(self, url: str) -> None:
        """Another scheme, port, kind or host, a look-alike, and a user name that looks like a host get nothing."""
        for found in (routes(), routes(hosts={"demo": "d2.tradovateapi.com"})):
            assert goes_to(found, url) is None
            assert not url.startswith(found.prefixes)
            assert urlsplit(url).scheme != found.scheme or urlsplit(url).netloc not in found.netlocs

    def test_live_is_another_system(self) -> None:
        """The live environment trusts its own hosts, and of the demo hosts only those that both share."""
        assert goes_to(routes(LIVE), "https://live.tradovateapi.com/v1") == "live.tradovateapi.com"
        assert goes_to(routes(LIVE), "https://replay.tradovateapi.com/v1") == "replay.tradovateapi.com"
        assert goes_to(routes(LIVE), "https://demo.tradovateapi.com/v1") is None
        assert goes_to(routes(LIVE), "https://md-demo.tradovateapi.com/v1") is None

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "tradovateapi.com.evil.example",
            "d2.tradovateapi.com:8443",
            "127.0.0.1",
            "d2/x",
            "",
        ],
    )
    @pytest.mark.parametrize("key", ["demo", "mdDemo", "someday"])
    def test_assigned_hosts_outside_the_domains(self, key: str, host: str) -> None:
        """A token's hosts are checked again: whoever tampers with the storage gains no header, and moves no request."""
        found = routes(hosts={key: host})
        assert goes_to(found, f"https://{host}/v1") is None
        assert goes_to(found, "https://demo.tradovateapi.com/v1") == "demo.tradovateapi.com"

    @pytest.mark.parametrize("key", ["live", "mdLive", "reportingLive", "riskMonitorLive", "adminLive"])
    def test_hosts_of_the_other_kind(self, key: str) -> None:
        """A demo token is no good at live hosts, so it does not go there, whatever the server assigned."""
        found = routes(hosts={key: "l2.tradovateapi.com"})
        assert goes_to(found, "https://l2.tradovateapi.com/v1") is None
        assert (
            goes_to(routes(LIVE, {key: "l2.tradovateapi.com"}), "https://l2.tradovateapi.com/v1") is not None
        )

    @pytest.mark.parametrize("key", ["demo", "mdDemo", "reportingDemo", "userContext", "someday"])
    def test_assigned_hosts(self, key: str) -> None:
        """What the server assigned to this kind, or to both, is trusted, known key or not (P§1.2)."""
        found = routes(hosts={key: "D2.tradovateapi.com"})
        assert goes_to(found, "https://d2.tradovateapi.com/v1/x") == "d2.tradovateapi.com"
        assert straight(found, "https://d2.tradovateapi.com/v1/x") == {True}

    @given(st.text(max_size=30), st.sampled_from(["https", "http", "wss", ""]))
    def test_no_text_is_trusted_by_accident(self, text: str, scheme: str) -> None:
        """Only the exact origins are trusted, whatever else a network location may be."""
        found = routes(hosts={"demo": "d2.tradovateapi.com"})
        for netloc in (text, f"{text}demo.tradovateapi.com", f"demo.tradovateapi.com{text}"):
            if found.find(scheme, netloc) is not None:
                assert scheme == "https"
                assert netloc.lower().removesuffix(":443") in {name for _, name in found.origins}


class TestRouting:
    """Where requests go."""

    def test_well_known_hosts_lead_to_the_assigned_ones(self) -> None:
        """A request to a well-known host goes to the host that the server assigned in its place."""
        found = routes(hosts={"demo": "d2.tradovateapi.com"})
        assert goes_to(found, "https://demo.tradovateapi.com/v1") == "d2.tradovateapi.com"
        assert goes_to(found, "https://DEMO.tradovateapi.com:443/v1") == "d2.tradovateapi.com"
        assert goes_to(found, "https://md-demo.tradovateapi.com/v1") == "md-demo.tradovateapi.com"

    def test_a_host_that_was_assigned_once_leads_to_the_current_one(self) -> None:
        """Whoever wrote down an assigned host is brought to where it has moved, however often."""
        found = routes()
        for number in range(2, 9):
            found = routes(hosts={"demo": f"d{number}.tradovateapi.com"}, earlier=found)
            for earlier in ["demo", *(f"d{known}" for known in range(2, number + 1))]:
                assert (
                    goes_to(found, f"https://{earlier}.tradovateapi.com/v1") == f"d{number}.tradovateapi.com"
                )

    def test_moves_without_end(self) -> None:
        """However often the server moves us: the well-known and the current host stay trusted, the memory is bounded."""
        found = routes()
        for number in range(50):
            found = routes(hosts={"demo": f"d{number % 20}.tradovateapi.com"}, earlier=found)
            current = f"d{number % 20}.tradovateapi.com"
            assert goes_to(found, f"https://{current}/v1") == current
            assert goes_to(found, "https://demo.tradovateapi.com/v1") == current
            assert len(found.origins) <= 12
        assert goes_to(found, "https://d0.tradovateapi.com/v1") is None, "forgotten long ago"

    def test_a_return_to_an_earlier_host(self) -> None:
        """A host that was given up and is assigned again is where requests go, and the one between leads there."""
        found = routes()
        for name in ("a", "b", "a"):
            found = routes(hosts={"demo": f"{name}.tradovateapi.com"}, earlier=found)
        for name in ("demo", "a", "b"):
            assert goes_to(found, f"https://{name}.tradovateapi.com/v1") == "a.tradovateapi.com"

    def test_an_assignment_that_ends(self) -> None:
        """Without an assigned host any more, the earlier one leads back to the well-known one."""
        found = routes(hosts={}, earlier=routes(hosts={"demo": "d2.tradovateapi.com"}))
        assert goes_to(found, "https://d2.tradovateapi.com/v1") == "demo.tradovateapi.com"
        assert goes_to(found, "https://demo.tradovateapi.com/v1") == "demo.tradovateapi.com"

    def test_a_key_without_a_well_known_host(self) -> None:
        """Where there is no well-known host, the last assigned one stays in use."""
        found = routes(hosts={"userContext": "u2.tradovateapi.com"})
        found = routes(hosts={"userContext": "u3.tradovateapi.com"}, earlier=found)
        assert goes_to(found, "https://u2.tradovateapi.com/v1") == "u3.tradovateapi.com"
        found = routes(hosts={}, earlier=found)
        assert goes_to(found, "https://u2.tradovateapi.com/v1") == "u3.tradovateapi.com"

    def test_a_host_that_is_current_under_another_key_is_left_alone(self) -> None:
        """A name that is in use somewhere is not routed away from there."""
        found = routes(hosts={"demo": "d2.tradovateapi.com", "mdDemo": "demo.tradovateapi.com"})
        assert goes_to(found, "https://demo.tradovateapi.com/v1") == "demo.tradovateapi.com"
        assert goes_to(found, "https://md-demo.tradovateapi.com/v1") == "demo.tradovateapi.com"

    def test_routing_can_be_switched_off(self) -> None:
        """Without routing every request goes where its URL says, and all the same hosts are trusted."""
        found = routes(hosts={"demo": "d2.tradovateapi.com"}, route=False)
        for host in ("demo.tradovateapi.com", "d2.tradovateapi.com"):
            assert goes_to(found, f"https://{host}/v1") == host
            assert straight(found, f"https://{host}/v1") == {True}

    def test_a_url_environment(self) -> None:
        """In a URL environment assigned hosts take its port, and loopback is one domain."""
        found = routes(LOOPBACK, {"demo": "localhost", "mdDemo": "md.localhost:9000"})
        assert goes_to(found, "http://127.0.0.1:8000/v1") == "localhost:8000"
        assert goes_to(found, "http://LOCALHOST:8000/v1") == "localhost:8000"
        assert goes_to(found, "http://md.localhost:9000/v1") == "md.localhost:9000"
        assert goes_to(found, "https://127.0.0.1:8000/v1") is None
        assert goes_to(found, "http://127.0.0.1/v1") is None

    @pytest.mark.parametrize("url", ["https://api.example.com/v1", "https://api.example.com:443/v1"])
    def test_the_default_port_has_one_spelling(self, url: str) -> None:
        """Whether the environment names the port that https implies or not: a request may do either."""
        found = routes(Environment(url))
        for request in ("https://api.example.com/v1", "https://api.example.com:443/v1"):
            assert goes_to(found, request) == "api.example.com"
        assert straight(found, "https://api.example.com/v1") == {True}

    def test_a_default_port_beside_another(self) -> None:
        """An assigned host may name the scheme's own port where the environment has another."""
        found = routes(STAGING, {"demo": "api.example.com:443"})
        assert goes_to(found, "https://api.example.com/v1") == "api.example.com"
        assert goes_to(found, "https://api.example.com:443/v1") == "api.example.com"
        assert goes_to(found, "https://api.example.com:8443/v1") == "api.example.com"

    @settings(max_examples=60)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["demo", "mdDemo", "live", "userContext"]),
                st.sampled_from([f"d{number}.tradovateapi.com" for number in range(12)] + ["evil.example"]),
                max_size=3,
            ),
            max_size=15,
        )
    )
    def test_any_history(self, history: list[dict[str, str]]) -> None:
        """Whatever was assigned, in whichever order: every target is trusted, and a second look changes nothing; the
        ways of naming an origin agree; nothing outside the domains gets in.
        """
        found = routes()
        for hosts in history:
            found = routes(hosts=hosts, earlier=found)
            for key, host in hosts.items():
                if key != "live" and host != "evil.example":
                    assert goes_to(found, f"https://{host}/v1") == host, "current hosts are left alone"
            assert goes_to(found, "https://evil.example/v1") is None
            for _, name in found.origins:
                target = goes_to(found, f"https://{name}/v1")
                assert target is not None
                assert goes_to(found, f"https://{target}/v1") == target
                assert straight(found, f"https://{name}/v1") == {target == name}
            assert set(DEMO.hosts.values()) <= {name for _, name in found.origins}


@pytest.mark.parametrize(
    ("netloc", "parts"),
    [
        ("demo.tradovateapi.com", ("demo.tradovateapi.com", None)),
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("", ("", None)),
    ],
)
def test_splitting_a_network_location(netloc: str, parts: tuple[str, int | None]) -> None:
    """Host and port are told apart, an IPv6 address without its brackets."""
    assert split_host(netloc) == parts


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://Org-B.tradovateapi.com:443/v1", "org-b.tradovateapi.com"),
        ("//org-b.tradovateapi.com:8443/v1", "org-b.tradovateapi.com:8443"),
        ("https://user:pw@org-b.tradovateapi.com/v1", "org-b.tradovateapi.com"),
        ("http://org-b.tradovateapi.com/v1", ""),
        ("https://[half", ""),
        ("/v1/x", ""),
        ("", ""),
    ],
)
def test_where_a_redirect_leads(url: str, found: str) -> None:
    """A redirect names its host in any spelling, or leads nowhere that matters."""
    assert location("https", url) == found


def test_a_host_that_sent_us_on() -> None:
    """Requests go where the assigned host says they should, also those to hosts that were assigned before it."""
    first = routes(hosts={"demo": "d1.tradovateapi.com"})
    second = routes(hosts={"demo": "d2.tradovateapi.com"}, earlier=first)
    sent_on = second.overruled("d2.tradovateapi.com", "demo.tradovateapi.com")
    token = some_token(hosts={"demo": "d2.tradovateapi.com"})
    found = Routes(DEMO, token, second.earlier, sent_on=sent_on)
    for name in ("demo", "d1", "d2"):
        assert goes_to(found, f"https://{name}.tradovateapi.com/v1") == "demo.tradovateapi.com"
    assert straight(found, "https://demo.tradovateapi.com/v1") == {True}
    assert found.overruled("demo.tradovateapi.com", None) == {}
    assert found.overruled("other.tradovateapi.com", None) == sent_on
