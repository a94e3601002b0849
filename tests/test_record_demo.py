"""The script that records the vendor's demo server, up to the check for credentials; and all of it against the emulator."""

from pathlib import Path

import pytest
from cassette_tools import secrets_in
from record_demo import PERSONAL, main
from stacks import plain_environment

from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment"]  # a fixture


@pytest.fixture
def somebody(tradovate_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the variables to a user of the emulator's, of whom nothing may be recorded."""
    who = {
        "name": "jane.doe",
        "password": "JanesPassword",
        "app_id": "Janes bot",
        "cid": "99",
        "sec": "4f7a-janes-secret",
        "device_id": "janes-laptop",
    }
    tradovate_emulator.add_user(**who)
    for name, value in who.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", value)
    return who


def recorded(folder: Path) -> dict[str, str]:
    """Return the recordings in a folder, by name."""
    return {path.stem: path.read_text() for path in folder.glob("*")}


def test_without_credentials_nothing_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the variables the script says which one is missing, and records nothing."""
    folder = tmp_path / "demo"
    assert main(["--yes"], folder=folder) == 2
    assert "TRADOVATE_NAME is not set" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.usefixtures("somebody")
def test_it_asks_first(
    tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes no session is opened."""
    assert main(["--environment", tradovate_emulator.url], folder=tmp_path) == 2
    assert "--yes" in capsys.readouterr().out
    assert tradovate_emulator.requests == ()


@pytest.mark.usefixtures("somebody")
def test_never_the_live_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Money is elsewhere."""
    assert main(["--yes", "--environment", "live"], folder=tmp_path) == 2
    assert "never the live one" in capsys.readouterr().out


def test_a_recording_says_nothing_of_whose_it_is(
    somebody: dict[str, str], tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One login, one renewal, one refusal; nothing of the user, his key or his device is in the files."""
    arguments = ["--yes", "--refused", "--environment", tradovate_emulator.url]
    assert main(arguments, folder=tmp_path) == 0
    counts = tradovate_emulator.counts
    assert (counts.logins_granted, counts.renewals_granted, counts.logins_refused) == (1, 1, 1)
    files = recorded(tmp_path)
    assert sorted(files) == ["login-granted", "login-refused", "renewal-granted"]
    for text in files.values():
        assert secrets_in(text) == []
        assert not [value for name, value in somebody.items() if name != "cid" and value in text]
        assert "127.0.0.1" not in text
    assert str(PERSONAL["deviceId"]) in files["login-granted"]
    printed = capsys.readouterr().out
    assert "login-refused: Refused" in printed
    assert not [value for value in somebody.values() if value in printed and value != "99"]


@pytest.mark.usefixtures("somebody")
def test_what_was_recorded_is_compared(
    tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison sends nothing; it names each field that one has and the other has not, or has as another type."""
    assert main(["--compare"], folder=tmp_path) == 2
    tradovate_emulator.configure(extra_fields={"showKIDs": True, "userId": "7"}, omit_fields=("hasLive",))
    assert main(["--yes", "--environment", tradovate_emulator.url], folder=tmp_path) == 0
    sent = len(tradovate_emulator.requests)
    capsys.readouterr()
    assert main(["--compare"], folder=tmp_path) == 0
    printed = capsys.readouterr().out
    assert "showKIDs: bool, emulated missing" in printed
    assert "hasLive: missing, emulated bool" in printed
    assert "userId" not in printed  # it was replaced by one of the emulator's
    assert len(tradovate_emulator.requests) == sent


@pytest.mark.usefixtures("somebody")
def test_a_recording_alike_is_called_so(
    tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing differs, that is said."""
    main(["--yes", "--environment", tradovate_emulator.url], folder=tmp_path)
    capsys.readouterr()
    main(["--compare"], folder=tmp_path)
    assert "login-granted: as the emulator has it" in capsys.readouterr().out


@pytest.mark.usefixtures("somebody")
def test_a_secret_that_nobody_knew_of_is_not_kept(
    tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that would hold something token-shaped is removed at once."""
    tradovate_emulator.configure(extra_fields={"refreshToken": "x" * 50})
    assert main(["--yes", "--environment", tradovate_emulator.url], folder=tmp_path) == 0
    assert recorded(tmp_path) == {}
    printed = capsys.readouterr().out
    assert "not kept" in printed
    assert "x" * 50 not in printed


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize("kind", ["html", "drop"])
def test_a_server_in_trouble(
    kind: str, tradovate_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a token there is no renewal, and no traceback."""
    tradovate_emulator.inject(Fault("login", kind))  # type: ignore[arg-type]  # two of its kinds
    assert main(["--yes", "--environment", tradovate_emulator.url], folder=tmp_path) == 1
    assert "Without a token" in capsys.readouterr().out
    assert tradovate_emulator.counts.renewals == 0
    capsys.readouterr()
    assert main(["--compare"], folder=tmp_path) == (0 if kind == "html" else 2)
    assert ("body: no JSON" in capsys.readouterr().out) is (kind == "html")
