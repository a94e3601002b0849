"""A bot as many are: module-level calls of requests, a header set by hand, one login at the start, and never a renewal."""

# mypy: ignore-errors

import json
import os
import time

import requests

API = os.environ["BOT_API"]


def get_access_token():
    """Log in."""
    body = {
        "name": os.environ["BOT_USER"],
        "password": os.environ["BOT_PASSWORD"],
        "appId": "Emulated App",
        "appVersion": "1.0",
        "cid": 4711,
        "sec": os.environ["BOT_SEC"],
        "deviceId": "poller",
    }
    response = requests.post(API + "/auth/accesstokenrequest", json=body, timeout=20)
    response.raise_for_status()
    return response.json()["accessToken"]


def main():
    """Ask for the accounts until somebody presses Ctrl-C."""
    statuses = []
    try:
        headers = {"Accept": "application/json", "Authorization": "Bearer " + get_access_token()}
        while True:
            response = requests.get(API + "/account/list", headers=headers, timeout=20)
            statuses.append(response.status_code)
            time.sleep(0.1)
    except KeyboardInterrupt:
        print(json.dumps(statuses))


if __name__ == "__main__":
    main()
