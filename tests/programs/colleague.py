"""A bot of another user than the runner's: it keeps its token in a file, and hands it to processes of every kind.

It prints for whom the server takes each of them.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import requests

API = os.environ["BOT_API"]
FILE = Path(os.environ["BOT_FILE"])


def name(token: str) -> str:
    """Ask the server for whom it takes the owner of a token."""
    headers = {"Authorization": f"Bearer {token}"}
    found: str = requests.get(f"{API}/auth/me", headers=headers, timeout=30).json()["name"]
    return found


def main() -> None:
    """Log in, unless an earlier run has; then ask in each way."""
    if FILE.exists():
        print(json.dumps({"a later run": name(FILE.read_text())}))
        return
    who = {"name": "colleague", "password": "secret"}
    token = requests.post(f"{API}/auth/accesstokenrequest", json=who, timeout=30).json()["accessToken"]
    FILE.write_text(token)
    found = {"itself": name(token)}
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            found[method] = pool.submit(name, token).result()
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    found["subprocess"] = json.loads(child.stdout)["a later run"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
