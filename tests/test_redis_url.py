"""Redis URLs: what they say, what client they make, and that nothing ever shows a password."""

import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tradovate_auth import ConfigurationError, StorageError
from tradovate_auth.storage import RedisStorage, from_url
from tradovate_auth.storage._redis_url import SCHEMES, Target, _maker, parsed

PASSWORD = "hunter2-4711"


def shown(error: BaseException) -> str:
    """Return everything that a report of an error shows."""
    text = "".join(traceback.format_exception(error))
    chain: BaseException | None = error
    while chain is not None:
        text += f"{chain} {chain!r} {chain.args}"
        chain = chain.__cause__ or chain.__context__
    return text


def failure(call: Callable[[], object], kind: type[Exception]) -> BaseException:
    """Return the error that a call raises; the caller's own line is not part of it."""
    with pytest.raises(kind) as caught:
        call()
    return caught.value


class TestParsing:
    """What a URL says."""

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("redis://", "redis localhost:6379/0"),
            ("redis://host", "redis host:6379/0"),
            ("REDIS://host:1/", "redis host:1/0"),
            ("redis://u:p@host:1/2", "redis host:1/2"),
            ("redis://:p@[::1]:1/2", "redis [::1]:1/2"),
            ("redis://:p@[::1]", "redis [::1]:6379/0"),
            ("redis://host?db=3", "redis host:6379/3"),
            ("rediss://host", "redis host:6379/0"),
            ("unix:///run/redis.sock", "redis /run/redis.sock db 0"),
            ("unix://u:p@/run/re@dis%20x.sock?db=1", "redis /run/re@dis x.sock db 1"),
            ("redis+sentinel://a,b:1/main", "redis main/0 by sentinel a:26379,b:1"),
            ("rediss+sentinel://u:p@a,[::1]/main/4", "redis main/4 by sentinel a:26379,[::1]:26379"),
            ("redis+cluster://a:1,b", "redis cluster a:1,b:6379"),
            ("rediss+cluster://:p@a", "redis cluster a:6379"),
        ],
    )
    def test_where(self, url: str, name: str) -> None:
        """Every form is understood, and the storage's name says where it is."""
        assert from_url(url).name == name

    @pytest.mark.parametrize(
        ("account", "login"),
        [
            ("", {}),
            (":p@", {"password": "p"}),
            ("u:p@", {"username": "u", "password": "p"}),
            ("u%3Ax:%40%2F%3F%23:%25@", {"username": "u:x", "password": "@/?#:%"}),
        ],
    )
    def test_who(self, account: str, login: dict[str, str]) -> None:
        """User and password are decoded, and may hold anything."""
        assert parsed(f"redis://{account}host").login == login

    @pytest.mark.parametrize(
        "url",
        [
            "redis://host:port",
            "redis://host:0",
            "redis://host:65536",
            "redis://host:1:2",
            "redis://ho st",
            "redis://[::1",
            "redis://a,b",
            "redis://host/db",
            "redis://host/-1",
            "redis://host/1/2",
            "redis://host/1?db=2",
            "redis://host#1",
            "redis://host?nosuch=1",
            "redis://host?db=1&db=1",
            "redis://host?db=",
            "redis://host?db=x",
            "redis://host?timeout=0",
            "redis://host?timeout=x",
            "redis://host?lease=inf",
            "redis://host?lease=nan",
            "redis://host?ssl_ca_certs=/x",
            "redis://host?sentinel_password=x",
            "redis://u@host",
            "redis://u:@host",
            "redis://:%ff@host",
            "redis://:p/w@host",
            "redis://u:1/2@host",
            "unix://",
            "unix:///",
            "unix:///a%00b",
            "unix://host/run/redis.sock",
            "unix://u:p/w@/run/redis.sock",
            "redis+sentinel://host",
            "redis+sentinel://host/",
            "redis+sentinel://host/a%20b",
            "redis+sentinel://host,/main",
            "redis+sentinel://host/main/x",
            "redis+cluster://host/1",
            "redis+cluster://host?db=1",
            "rediss+cluster://host,,host",
        ],
    )
    def test_what_is_none(self, url: str) -> None:
        """What cannot be right is an error that shows the forms that are known, and nothing of the URL."""
        error = failure(lambda: from_url(url), ConfigurationError)
        assert "redis+sentinel://host,host/service" in str(error)
        assert error.__context__ is None

    @pytest.mark.parametrize("scheme", ["redis+other", "redisx", "valkey", "http", "unix+sentinel"])
    def test_other_schemes(self, scheme: str) -> None:
        """Another scheme is told so."""
        with pytest.raises(ConfigurationError, match="scheme"):
            from_url(f"{scheme}://host/main")
        assert scheme not in SCHEMES

    def test_options_of_the_storage(self) -> None:
        """Prefix and lease may stand in the URL, also a prefix that is none."""
        storage = from_url("redis://host?prefix=bots&lease=2.5")
        assert isinstance(storage, RedisStorage)
        assert (storage._prefix, storage._lease) == ("bots", 2.5)
        with pytest.raises(ConfigurationError, match="prefix"):
            from_url("redis://host?prefix=%7B")


def options_of(url: str) -> dict[str, Any]:
    """Return what the connections of the client that a URL makes are made with."""
    client: Any = _maker(parsed(url))()
    return dict(client.connection_pool.connection_kwargs)


class TestClients:
    """What client a URL makes."""

    def test_a_plain_one(self) -> None:
        """A client has short time-outs, one retry for a connection that broke, and none for a server that hangs."""
        options = options_of("redis://u:p@host:1/2")
        assert {name: options[name] for name in ("host", "port", "db", "username", "password")} == {
            "host": "host",
            "port": 1,
            "db": 2,
            "username": "u",
            "password": "p",
        }
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (2.0, 2.0)
        assert options["retry"].get_retries() == 1
        assert not issubclass(TimeoutError, options["retry"]._supported_errors)
        assert options_of("redis://host?timeout=0.5")["socket_timeout"] == 0.5

    def test_one_on_a_socket(self) -> None:
        """A socket takes user and password too."""
        options = options_of("unix://:p@/run/redis.sock?db=3")
        assert (options["path"], options["password"], options["db"]) == ("/run/redis.sock", "p", 3)

    def test_one_over_tls(self) -> None:
        """TLS checks the server's name and certificate, with the files that are named."""
        options = options_of("rediss://host?ssl_ca_certs=/ca&ssl_certfile=/cert&ssl_keyfile=/key")
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        assert [options[name] for name in names] == ["/ca", "/cert", "/key"]
        assert options["ssl_cert_reqs"] == "required"
        assert options["ssl_check_hostname"]

    def test_one_by_sentinel(self) -> None:
        """User and password of the URL are the server's; the sentinels have their own or none, and the same TLS and time-outs."""
        url = "rediss+sentinel://u:p@a,b:1/main/4?sentinel_username=s&sentinel_password=t&timeout=0.5&ssl_ca_certs=/ca"
        client: Any = _maker(parsed(url))()
        pool = client.connection_pool
        assert pool.service_name == "main"
        mine = pool.connection_kwargs
        assert (mine["username"], mine["password"], mine["db"], mine["ssl_ca_certs"]) == ("u", "p", 4, "/ca")
        assert len(pool.sentinel_manager.sentinels) == 2
        for sentinel in pool.sentinel_manager.sentinels:
            theirs = sentinel.connection_pool.connection_kwargs
            assert (theirs["username"], theirs["password"], theirs["ssl_ca_certs"]) == ("s", "t", "/ca")
            assert theirs["socket_timeout"] == theirs["socket_connect_timeout"] == 0.5
        bare: Any = _maker(parsed("redis+sentinel://u:p@a/main"))()
        theirs = bare.connection_pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
        assert (theirs.get("username"), theirs.get("password")) == (None, None)
        assert "ssl_ca_certs" not in theirs

    def test_nothing_is_connected_before_it_is_needed(self) -> None:
        """A URL makes a storage without touching the network, a cluster's too; the first use tells what is wrong, each time."""
        storage = from_url("redis+cluster://127.0.0.1:1")
        for _ in range(2):
            with pytest.raises(StorageError, match="cluster"):
                storage.load("key")


PASSWORDS = st.text(min_size=4, max_size=24)


class TestSecrets:
    """No part of a URL is ever shown."""

    @settings(max_examples=400, deadline=None)
    @given(
        password=PASSWORDS,
        scheme=st.sampled_from([*SCHEMES, "http"]),
        quoted=st.booleans(),
        rest=st.sampled_from(["@host", "@host:port/0", "@", "", "@host/x?nosuch=1", "@h,i/main", "@[::1/"]),
    )
    def test_no_password_is_shown(self, password: str, scheme: str, quoted: bool, rest: str) -> None:
        """Whatever the password is, encoded or not, and whatever else is wrong: no error, name or repr has it."""
        assume(rest or quoted or "@" not in password)  # what follows the only @ is a host, by any reading
        secret = f"hunter2-{password}-4711"
        url = f"{scheme}://user-4712:{quote(secret, safe='') if quoted else secret}{rest}"
        try:
            storage = from_url(url)
        except ConfigurationError as error:
            text = shown(error)
        else:
            text = f"{storage.name} {storage!r}"
        assert "hunter2" not in text
        assert "4711" not in text
        assert "user-4712" not in text

    @pytest.mark.parametrize(
        "url",
        [
            f"redis://user:{PASSWORD}@127.0.0.1:1/0",
            f"unix://user:{PASSWORD}@/nonexistent/redis.sock",
            f"redis+sentinel://user:{PASSWORD}@127.0.0.1:1/main?sentinel_password={PASSWORD}",
            f"redis+cluster://user:{PASSWORD}@127.0.0.1:1",
        ],
    )
    def test_no_failing_call_shows_it(self, url: str) -> None:
        """A server that cannot be reached is told by where it is, without the client's exception, which may hold more."""
        storage = from_url(url)
        error = failure(lambda: storage.load("key"), StorageError)
        assert PASSWORD not in shown(error)
        assert error.__cause__ is None
        assert error.__context__ is None
        assert storage.name.removeprefix("redis ") in str(error)

    def test_a_target_is_a_tuple(self) -> None:
        """What a URL says never leaves its module but as a client; its place has no secret."""
        target: Target = parsed(f"redis://user:{PASSWORD}@host")
        assert PASSWORD not in target.place
