"""Environments: which URL is one, which hosts may be trusted in it, and how long its hour is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradovate_auth import ConfigurationError, Environment
from tradovate_auth.environments import VENDOR_DOMAINS, _is_loopback

LOOPBACK = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        (
            "demo",
            {
                "demo": "demo.tradovateapi.com",
                "mdDemo": "md-demo.tradovateapi.com",
                "replay": "replay.tradovateapi.com",
            },
        ),
        (
            "live",
            {
                "live": "live.tradovateapi.com",
                "mdLive": "md.tradovateapi.com",
                "replay": "replay.tradovateapi.com",
            },
        ),
    ],
)
def test_the_vendors_environments(name: str, hosts: dict[str, str]) -> None:
    """The names demo and live are the vendor's, with the hosts of P§1.1 and the vendor's domains."""
    environment = Environment.of(name)
    assert environment.url == f"https://{name}.tradovateapi.com/v1"
    assert (environment.kind, environment.hosts, environment.domains) == (name, hosts, VENDOR_DOMAINS)
    assert environment.origin == f"https://{name}.tradovateapi.com"
    assert not environment.loopback


def test_environments_are_values() -> None:
    """Equal environments are equal and hash equally; an environment stands for itself."""
    assert Environment.of("demo") == Environment.of("demo")
    assert hash(Environment.of("demo")) == hash(Environment.of("demo"))
    assert Environment.of("demo") != Environment.of("live")
    live = Environment.of("live")
    assert Environment.of(live) is live


def test_the_hosts_are_read_only() -> None:
    """Nobody adds a trusted host to an environment once it is made."""
    with pytest.raises(TypeError):
        Environment.of("demo").hosts["demo"] = "evil.example"  # type: ignore[index]  # that is the mistake


@pytest.mark.parametrize(
    ("url", "scheme", "host", "path"),
    [
        ("https://api.example.com/v1", "https", "api.example.com", "/v1"),
        ("HTTPS://API.Example.COM/v1/", "https", "api.example.com", "/v1"),
        ("https://api.example.com:8443/base/v1", "https", "api.example.com:8443", "/base/v1"),
        ("https://api.example.com:443/v1", "https", "api.example.com", "/v1"),
        ("http://localhost:80/v1", "http", "localhost", "/v1"),
        ("http://LOCALHOST:9000/v1", "http", "localhost:9000", "/v1"),
        ("http://[::1]:9000/v1", "http", "[::1]:9000", "/v1"),
        ("http://api.localhost/v1", "http", "api.localhost", "/v1"),
        (LOOPBACK, "http", "127.0.0.1:8000", "/v1"),
    ],
)
def test_a_url_is_an_environment_of_its_own(url: str, scheme: str, host: str, path: str) -> None:
    """A URL is taken apart once; a port that the scheme implies is dropped, so that one origin has one spelling."""
    environment = Environment.of(url)
    assert (environment.scheme, environment.host, environment.path) == (scheme, host, path)
    assert environment.url == f"{scheme}://{host}{path}" == environment.base(host)
    assert environment.origin == f"{scheme}://{host}"
    assert environment.hosts == {"demo": host}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "staging",
        "demo.tradovateapi.com/v1",
        "ftp://demo.tradovateapi.com/v1",
        "https:///v1",
        "https://demo.tradovateapi.com",
        "https://demo.tradovateapi.com/v2",
        "https://user@demo.tradovateapi.com/v1",
        "https://:secret@demo.tradovateapi.com/v1",
        "https://demo.tradovateapi.com/v1?x=1",
        "https://demo.tradovateapi.com/#/v1",
        "https://demo.tradovateapi.com:99999/v1",
        "https://demo.tradovateapi.com:port/v1",
        "https://[::1/v1",
        "https://\u2100.example/v1",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    """Anything but a plain base URL ending in /v1 is a ConfigurationError, which does not repeat it."""
    with pytest.raises(ConfigurationError) as caught:
        Environment.of(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["demo.tradovateapi.com", "10.0.0.1", "localhost.evil.example", "notlocalhost"]
)
def test_plain_http_is_for_loopback_alone(host: str) -> None:
    """A token never travels in the clear over a network."""
    with pytest.raises(ConfigurationError, match="never sent over plain http"):
        Environment(f"http://{host}/v1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("emulator.localhost", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("example", False),
    ],
)
def test_loopback(host: str, *, expected: bool) -> None:
    """Loopback is this machine: its addresses, localhost and the names under it."""
    assert _is_loopback(host) == expected


def test_the_kind_is_demo_or_live() -> None:
    """There is no third kind of system."""
    with pytest.raises(ConfigurationError, match="'demo' or 'live'"):
        Environment(LOOPBACK, kind="paper")  # type: ignore[arg-type]  # that is the mistake


@pytest.mark.parametrize(
    ("key", "demo", "live"),
    [
        ("demo", True, False),
        ("live", False, True),
        ("mdDemo", True, False),
        ("mdLive", False, True),
        ("reportingLive", False, True),
        ("riskMonitorDemo", True, False),
        ("replay", True, True),
        ("userContext", True, True),
    ],
)
def test_keys_belong_to_a_kind(key: str, *, demo: bool, live: bool) -> None:
    """A host key belongs to demo, to live, or to both (P§1.2)."""
    assert (Environment.of("demo").owns(key), Environment.of("live").owns(key)) == (demo, live)


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "tradovateapi.com.evil.example",
        "eviltradovateapi.com",
        "demo.tradovateapi.com@evil.example",
        "https://demo.tradovateapi.com",
        "demo.tradovateapi.com/v1",
        "demo.tradovateapi.com:443",
        "demo.tradovateapi.com:8443",
        "demo..tradovateapi.com",
        "-demo.tradovateapi.com",
        "demo.tradovateapi.com.",
        "demo.tradovateapi.com\n",
        " demo.tradovateapi.com",
        "demo\u3002tradovateapi.com",
        "127.0.0.1",
        "localhost",
        "x" * 50 + ".tradovateapi.com",
        "",
        None,
        5,
        b"demo.tradovateapi.com",
        ["demo.tradovateapi.com"],
    ],
)
def test_hosts_that_must_not_be_trusted(name: object) -> None:
    """Only a bare host name inside the vendor's domains is one that the vendor may assign."""
    assert Environment.of("demo").admit(name) is None


@pytest.mark.parametrize(
    "name", ["d2.tradovateapi.com", "D2.TradovateAPI.com", "tradovateapi.com", "x.ninjatrader.com"]
)
def test_hosts_of_the_vendor(name: str) -> None:
    """A host inside the vendor's domains is admitted, in lower case."""
    assert Environment.of("demo").admit(name) == name.lower()


@pytest.mark.parametrize(
    ("url", "name", "admitted"),
    [
        (LOOPBACK, "localhost", "localhost:8000"),
        (LOOPBACK, "d2.localhost:9000", "d2.localhost:9000"),
        (LOOPBACK, "127.0.0.2", "127.0.0.2:8000"),
        (LOOPBACK, "localhost:80", "localhost:80"),
        (LOOPBACK, "localhost:0", None),
        (LOOPBACK, "localhost:65535", "localhost:65535"),
        (LOOPBACK, "localhost:65536", None),
        (LOOPBACK, "localhost:", None),
        (LOOPBACK, "example.com", None),
        ("https://api.example.com/v1", "d2.api.example.com", "d2.api.example.com"),
        ("https://api.example.com/v1", "api.example.com:443", "api.example.com"),
        ("https://api.example.com/v1", "api.example.com:0443", "api.example.com"),
        ("https://api.example.com/v1", "example.com", None),
        ("https://api.example.com/v1", "demo.tradovateapi.com", None),
    ],
)
def test_hosts_of_a_url_environment(url: str, name: str, admitted: str | None) -> None:
    """Assigned names take the URL's port unless they name one; on loopback, all of loopback is admitted."""
    assert Environment(url).admit(name) == admitted


def test_domains_of_ones_own() -> None:
    """Whoever names domains is held to them."""
    environment = Environment("https://a.example.com/v1", domains=("example.com",))
    assert environment.admit("b.example.com") == "b.example.com"
    assert environment.admit("demo.tradovateapi.com") is None
    assert Environment("https://demo.tradovateapi.com/v1").domains == VENDOR_DOMAINS


@pytest.mark.parametrize(
    "url", [LOOPBACK, "http://localhost/v1", "https://api.example.com:8443/v1", "https://api.example.com/v1"]
)
@given(
    name=st.from_regex(
        r"(127\.0\.0\.1|([a-z]\.)?localhost|([a-z]\.)?api\.example\.com)(:[0-9]{1,5})?", fullmatch=True
    )
)
def test_admitting_twice_changes_nothing(url: str, name: str) -> None:
    """A host goes through the check when it is read from the server and again from the storage: to the same end."""
    environment = Environment(url)
    if (admitted := environment.admit(name)) is not None:
        assert environment.admit(admitted) == admitted


def test_further_well_known_hosts() -> None:
    """More hosts may be named; those that may not be trusted are a mistake."""
    environment = Environment(LOOPBACK, kind="live", hosts={"mdLive": "LOCALHOST"})
    assert environment.hosts == {"live": "127.0.0.1:8000", "mdLive": "localhost:8000"}
    with pytest.raises(
        ConfigurationError, match=r"hosts\['mdDemo'\] is no bare host name inside its domains"
    ):
        Environment("https://demo.tradovateapi.com/v1", hosts={"mdDemo": "evil.example"})


def test_the_hour_is_the_servers() -> None:
    """Off loopback the window of every limit is 3,600 seconds, whatever the tokens live."""
    for lifetime in (None, 1.0, 4800.0, 1e6):
        assert Environment.of("demo").window(lifetime) == 3600.0
    with pytest.raises(ConfigurationError, match="only on loopback"):
        Environment("https://demo.tradovateapi.com/v1", hour=60.0)


@pytest.mark.parametrize(
    ("lifetime", "hour"), [(None, 3600.0), (10.0, 60.0), (600.0, 3600.0), (4800.0, 3600.0)]
)
def test_the_hour_shrinks_on_loopback(lifetime: float | None, hour: float) -> None:
    """On loopback six lifetimes make the hour, and no more than an hour does."""
    assert Environment(LOOPBACK).window(lifetime) == hour


def test_an_hour_of_ones_own() -> None:
    """On loopback it may be any number above nought."""
    assert Environment(LOOPBACK, hour=12.0).window(4800.0) == 12.0
    for hour in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="above 0 seconds"):
            Environment(LOOPBACK, hour=hour)


@given(st.text(max_size=40))
def test_any_text_is_an_environment_or_a_configuration_error(text: str) -> None:
    """No text, in whichever place of a URL, leads to another error than ours."""
    for url in (text, f"https://{text}/v1", f"http://localhost:{text}/v1"):
        try:
            environment = Environment.of(url)
        except ConfigurationError:
            continue
        assert environment.scheme == "https" or environment.loopback


@given(st.text(max_size=40))
def test_whatever_is_admitted_lies_within_the_domains(text: str) -> None:
    """Whatever a server assigns: what is admitted is a bare name inside the vendor's domains."""
    environment = Environment.of("demo")
    for name in (text, f"{text}.tradovateapi.com", f"tradovateapi.com{text}"):
        admitted = environment.admit(name)
        assert admitted is None or f".{admitted}".endswith((".tradovateapi.com", ".ninjatrader.com"))


@pytest.mark.parametrize("kind", ["demo", "live"])
@pytest.mark.parametrize(
    "form", ["https://{}.tradovateapi.com/v1", "https://{}.TRADOVATEAPI.com:443/v1/", "{}"]
)
def test_a_url_of_the_vendor_is_the_vendors_environment(kind: str, form: str) -> None:
    """The live URL is live: named in any way it has the same hosts, so nothing of live is ever routed to demo."""
    assert Environment.of(form.format(kind)) == Environment.of(kind)
    assert Environment.of(form.format(kind)).kind == kind


def test_a_host_of_the_other_kind_is_no_environment() -> None:
    """A live host under the kind demo would get demo's assigned hosts, and its orders with them."""
    with pytest.raises(ConfigurationError, match="is a live host"):
        Environment("https://live.tradovateapi.com/v1")


@pytest.mark.parametrize(("value", "text"), [("prod", "'prod' is no environment"), (3, "not int")])
def test_what_is_no_environment_is_named(value: Any, text: str) -> None:
    """The error shows the word that was given."""
    with pytest.raises(ConfigurationError, match=text):
        Environment.of(value)
