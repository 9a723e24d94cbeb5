"""The local gateway: the one that runs, or one of our own for as long as this process lives."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

# Where `anteroom gateway` listens unless told otherwise.
USUAL_URL = "http://127.0.0.1:7470/v1"
# Seconds that a gateway may take to answer or to start.
PATIENCE = 30.0


class GatewayError(RuntimeError):
    """No gateway can be used; says why and what to do."""


@dataclass(frozen=True)
class Gateway:
    """Where a gateway is, and what it lets in."""

    base_url: str
    token: str


_own: dict[tuple[str, str | None, str | None], Gateway] = {}
_lock = threading.Lock()


def folder(home: str | None) -> Path:
    """The party's folder."""
    return Path(home or os.environ.get("ANTEROOM_HOME") or Path.home() / ".anteroom").expanduser()


def find_or_start(
    home: str | None = None, grant: str | None = None, run: str | None = None, program: str | None = None
) -> Gateway:
    """A gateway for this folder. A named grant or run gets one of its own: whatever runs already may serve others."""
    at = folder(home)
    if grant is None and run is None:
        named = os.environ.get("ANTEROOM_GATEWAY_URL")
        found = _running(at, named or USUAL_URL)
        if found is not None:
            return found
        if named is not None:
            raise GatewayError(f"the gateway at {named} does not answer to the token in {at / 'gateway.token'}")
    with _lock:
        key = (str(at), grant, run)
        if key not in _own:
            _own[key] = _start(at, grant, run, program)
        return _own[key]


def _running(home: Path, base_url: str) -> Gateway | None:
    token = os.environ.get("ANTEROOM_GATEWAY_TOKEN")
    if token is None:
        try:
            token = (home / "gateway.token").read_text().strip()
        except OSError:
            return None
    # No proxy stands between a process and its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{base_url.rstrip('/')}/models", headers={"Authorization": f"Bearer {token}"})
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            json.load(response)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return Gateway(base_url, token)


def _start(home: Path, grant: str | None, run: str | None, program: str | None) -> Gateway:
    name = program or os.environ.get("ANTEROOM_PROGRAM") or "anteroom"
    path = shutil.which(name)
    if path is None:
        raise GatewayError(f"`{name}` is not on PATH; build or install the `anteroom` command, or name it with -M program=PATH")
    words = [path, "--home", str(home), "--format", "jsonl", "gateway", "--listen", "127.0.0.1:0"]
    for flag, value in (("--grant", grant), ("--run", run)):
        if value is not None:
            words += [flag, value]
    # Standard error stays the user's: what the gateway says there is meant for them.
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    atexit.register(_stop, child)
    timer = threading.Timer(PATIENCE, child.kill)
    timer.start()
    try:
        line = child.stdout.readline() if child.stdout else ""
    finally:
        timer.cancel()
    try:
        started = json.loads(line)
        token = Path(started["token_file"]).read_text().strip()
        return Gateway(started["base_url"], token)
    except (ValueError, KeyError, OSError) as error:
        child.kill()
        raise GatewayError("the gateway did not start; what it said is above, `anteroom whoami` shows whether the folder works") from error


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
