"""One call on its way: tried again only if it never left, to the host that is the one to ask, and read for what it means."""

import re
from collections.abc import Iterator

import pytest
from core_tools import FrailStorage, SocketTransport, World

from tradovate_auth import AccessToken, ProviderClosed, StorageError, TokenProvider, TransportError
from tradovate_auth._account import Account
from tradovate_auth._delivery import deliver
from tradovate_auth.events import Evicted, HostsMoved, Renewed
from tradovate_auth.storage import MemoryStorage, Record
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply


def account(world: World, **options: object) -> Account:
    """Return the account of a new provider."""
    return world.provider(**options)._account


def test_patience_ends_with_the_provider(world: World) -> None:
    """`close` ends the wait between two tries of a server that cannot be reached."""
    mine = account(world)
    world.server.stop()
    mine.closing.set()
    with pytest.raises(ProviderClosed):
        deliver(mine, Call("GET", f"{world.server.url}/x", {}), Record(), patient=True)


def test_whoever_is_in_a_hurry_tries_once(world: World) -> None:
    """Without patience a connection that cannot be made is an error at once; one that broke is never repeated."""
    mine = account(world)
    world.server.stop()
    with pytest.raises(TransportError) as caught:
        deliver(mine, Call("GET", f"{world.server.url}/x", {}), Record(), patient=False)
    assert not caught.value.sent
    assert len(world.transport.calls) == 1


def test_an_error_of_our_own_passes_through(world: World) -> None:
    """What a transport raises of this package's errors is not dressed up."""

    class Locked:
        def send(self, call: Call, timeout: float) -> Reply:
            raise StorageError("a transport with a storage of its own")

    with pytest.raises(StorageError, match="of its own"):
        world.provider(transport=Locked(), storage=MemoryStorage(clock=world.clock)).get()


ASSIGNED = "127.0.0.3"
LOST = TransportError("the connection broke", None, None, True)


@pytest.fixture
def moved(fake_clock: FakeClock) -> Iterator[World]:
    """Yield a world whose server has assigned another host, which it does not name again, and is not the one to ask any more."""
    with Emulator(clock=fake_clock, aliases=(ASSIGNED,)) as server:
        made = World(fake_clock, server, FrailStorage(clock=fake_clock))
        server.configure(api_hosts={"demo": ASSIGNED})
        made.provider(on_event=None).get()
        server.configure(api_hosts=None, own_hosts=("127.0.0.1",), wrong_host_renewals=True)
        yield made
        for provider in made.opened:
            provider.close()


def asked(world: World) -> list[str]:
    """Return the hosts that were called, in order."""
    return [re.sub(r"http://([^:]+):.*", r"\1", call.url) for call in world.transport.calls]


def renew(world: World, provider: TokenProvider, after: float = 4100.0) -> AccessToken:
    """Let the next renewal come due and end; return the token in hand then."""
    world.clock.advance(after)
    provider.get()
    world.settled(provider)
    return provider.get()


@pytest.mark.parametrize("style", ["307", "421", "404"])
def test_a_renewal_finds_back_from_a_host_that_is_not_the_one_to_ask(moved: World, style: str) -> None:
    """It says so, and the host that everybody starts from renews: one session, and calls go there from then on."""
    moved.server.configure(wrong_host=style)
    provider = moved.provider()
    assert ASSIGNED in provider.url("demo", "/x") or provider.get()
    assert renew(moved, provider).generation == 2
    assert asked(moved) == ["127.0.0.1", ASSIGNED, "127.0.0.1"]
    assert moved.server.counts.logins == 1
    assert provider.url("demo", "/x").startswith(f"http://127.0.0.1:{moved.server.port}/")
    assert moved.events.wait_for(HostsMoved).hosts == {}
    newcomer = moved.provider(on_event=None)
    newcomer.get()
    assert newcomer.url("demo", "/x") == provider.url("demo", "/x")
    renew(moved, provider)
    assert asked(moved)[3:] == ["127.0.0.1"]


def test_a_host_that_is_gone_is_forgotten(fake_clock: FakeClock) -> None:
    """Nobody listens at the assigned host any more: the renewal that the other one grants is the end of it for calls too."""
    with Emulator(clock=fake_clock) as server:
        world = World(fake_clock, server, FrailStorage(clock=fake_clock))
        server.configure(api_hosts={"demo": ASSIGNED, "md": "md.localhost"})
        provider = world.provider()
        provider.get()
        server.configure(api_hosts=None)
        assert renew(world, provider).generation == 2
        assert asked(world) == ["127.0.0.1", ASSIGNED, "127.0.0.1"]
        assert world.events.wait_for(HostsMoved, 2).hosts == {"md": f"md.localhost:{server.port}"}
        assert provider._account.load().hosts == {"md": f"md.localhost:{server.port}"}
        provider.close()


def test_a_host_that_is_named_again_stays(moved: World) -> None:
    """The host that everybody starts from assigns it once more: its fault was a passing one."""
    moved.server.configure(wrong_host="421", api_hosts={"demo": ASSIGNED})
    provider = moved.provider()
    provider.get()
    assert renew(moved, provider).generation == 2
    assert provider.url("demo", "/x").startswith(f"http://{ASSIGNED}:")
    assert not moved.events.of(HostsMoved)


def test_after_an_answer_that_got_lost_the_other_host_is_asked(moved: World) -> None:
    """The assigned host takes the call and never answers. What is tried next goes to the one that everybody starts from."""

    class Silent(SocketTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            if ASSIGNED in call.url:
                self.calls.append(call)
                raise LOST
            return super().send(call, timeout)

    moved.transport = Silent()
    provider = moved.provider(transport=moved.transport)
    provider.get()
    assert renew(moved, provider).generation == 1
    assert renew(moved, provider, after=301.0).generation == 2
    moved.events.wait_for(Renewed)
    assert asked(moved) == [ASSIGNED, "127.0.0.1"]
    assert provider.url("demo", "/x").startswith("http://127.0.0.1:")
    assert moved.server.counts.logins == 1


def test_a_refusal_there_is_a_refusal(moved: World) -> None:
    """The session is gone: the login that follows does not bring the host back that turned us away."""
    moved.server.configure(wrong_host="421")
    provider = moved.provider()
    provider.get()
    moved.server.revoke()
    moved.clock.advance(4100)
    provider.get()
    moved.settled(provider)
    assert provider.get().generation == 2
    moved.events.wait_for(Evicted)
    assert provider.url("demo", "/x").startswith("http://127.0.0.1:")


def test_a_server_in_trouble_takes_no_host_away(moved: World) -> None:
    """Neither host grants or refuses anything: nothing is learnt about where to go."""
    moved.server.configure(wrong_host="404", api_hosts={"demo": ASSIGNED})
    moved.server.inject(Fault("renewal", "status", status=503, times=2))
    provider = moved.provider()
    provider.get()
    assert renew(moved, provider).generation == 1
    assert provider.url("demo", "/x").startswith(f"http://{ASSIGNED}:")


@pytest.mark.parametrize("fault", ["a fault", "a penalty"])
def test_a_server_that_answers_is_asked_again(moved: World, fault: str) -> None:
    """The assigned host is the right one, and has a bad minute: the next renewal goes there too, and calls stay there."""
    moved.server.configure(wrong_host=None)
    if fault == "a fault":
        moved.server.inject(Fault("renewal", "status", status=503))
    else:
        moved.server.penalize("renewal", seconds=15)
    provider = moved.provider()
    provider.get()
    assert renew(moved, provider).generation == 1
    assert renew(moved, provider, after=301.0).generation == 2
    moved.events.wait_for(Renewed)
    assert asked(moved)[1:] == [ASSIGNED, ASSIGNED]
    assert provider.url("demo", "/x").startswith(f"http://{ASSIGNED}:")
