"""Programs that are run by the interpreter and by the runner of `tradovate_auth.instrumentation`, and what is seen of them."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tradovate_auth
from tradovate_auth.testing import Emulator

__all__ = [
    "CALLED",
    "CALLS",
    "REQUEST",
    "RUNNER",
    "SITE",
    "UNMEASURED",
    "WARNED",
    "WARNS",
    "Bench",
    "Ended",
    "bench",
    "how",
]

RUNNER = ["-m", "tradovate_auth.instrumentation"]
SITE = Path(tradovate_auth.__file__).parent / "_site"

UNMEASURED = {name: None for name in os.environ if name.startswith("COV")}
"""Keeps the coverage of these tests out of a process."""

Ended = subprocess.CompletedProcess[str]


class Bench:
    """A folder with programs, and the environment that they are run in."""

    def __init__(self, server: Emulator, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.home = folder.parent / "home"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("TRADOVATE_", "XDG_"))
            },
            **{f"TRADOVATE_{name.upper()}": str(value) for name, value in server.credentials.items()},
            "TRADOVATE_ENVIRONMENT": server.url,
            "TRADOVATE_STORAGE": (folder.parent / "session").as_uri(),
            "HOME": str(self.home),
            "API": server.url,
        }

    def write(self, name: str, source: str) -> Path:
        """Put a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def python(
        self, *arguments: str, changed: Mapping[str, str | None] = {}, given: str | None = None
    ) -> Ended:
        """Run the interpreter in the folder, with some variables changed, or removed for None, and something on stdin."""
        names = {name: value for name, value in {**self.environment, **changed}.items() if value is not None}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=names,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, *arguments: str, changed: Mapping[str, str | None] = {}, given: str | None = None) -> Ended:
        """Run the runner so."""
        return self.python(*RUNNER, *arguments, changed=changed, given=given)

    def heard(self, lines: int, *arguments: str) -> Ended:
        """Run the runner; leave stdin open until so many lines have come on stderr, which another thread may write."""
        with subprocess.Popen(
            [sys.executable, *RUNNER, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stderr is not None
            first = [program.stderr.readline() for _ in range(lines)]
            output, rest = program.communicate(timeout=60)
        return Ended(program.args, program.returncode, output, "".join(first) + rest)

    def both(self, *arguments: str, given: str | None = None) -> tuple[Ended, Ended]:
        """Run a program by the runner and by the interpreter, at the same time."""
        with ThreadPoolExecutor(2) as pool:
            ours, plain = (
                pool.submit(self.run, *arguments, given=given),
                pool.submit(self.python, *arguments, changed=UNMEASURED, given=given),
            )
            return ours.result(), plain.result()


@pytest.fixture
def bench(tmp_path: Path, tradovate_emulator: Emulator) -> Bench:
    """Return an empty folder, and an environment that names the emulator."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Bench(tradovate_emulator, folder)


def how(ended: Ended) -> tuple[int, str, str]:
    """Return all that can be seen of an end."""
    return ended.returncode, ended.stdout, ended.stderr


CALLS = """
    import os
    import requests

    def call():
        fields = {"name": "NAME", "password": "PASSWORD", "appId": "APP_ID", "cid": "CID", "sec": "SEC"}
        body = {field: os.environ["TRADOVATE_" + name] for field, name in fields.items()}
        answer = requests.post(os.environ["API"] + "/auth/accesstokenrequest", json=body, timeout=20).json()
        headers = {"Authorization": "Bearer of no good"}
        status = requests.get(os.environ["API"] + "/account/list", headers=headers, timeout=20).status_code
        return sorted({"accessToken", "expirationTime"} & set(answer)), status
"""
WARNS = """
    import os, requests

    def warn():
        api = os.environ["API"]
        body = {"name": "colleague", "password": "their secret", "cid": 9, "sec": "their key"}
        told = [requests.get(api + "/account/list", verify=False, timeout=20).status_code for _ in range(2)]
        return told, "accessToken" in requests.post(api + "/auth/accesstokenrequest", json=body, timeout=20).json()
"""
WARNED = "([200, 200], True)"
CALLED = "(['accessToken', 'expirationTime'], 200)"
REQUEST = "import os, requests; print(requests.get(os.environ['API'] + '/account/list').status_code)"
