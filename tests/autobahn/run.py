#!/usr/bin/env python3
"""The Autobahn test suite against tickcast, over TCP and TLS.

usage: run.py TICKCAST CLIENT

TICKCAST is the server, and CLIENT the example `autobahn_client`, both built with the feature `echo`. Prints one line per run and
exits with 1 if a case failed. Needs a Python 2.7: PYTHON2, a pyenv with one, or `python2.7` on the path.
"""

import asyncio
import glob
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent / ".deps" / "autobahn"
SUITE = "autobahntestsuite==25.10.1"

ECHO = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
# Cases whose expected result does not depend on an echo. The feed answers no message with the same message.
FEED = (
    "2.1 2.2 2.3 2.4 2.5 2.6 2.7 2.8 2.9 2.10 2.11 3.1 3.2 3.3 3.4 3.5 3.6 3.7 4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.2.1 4.2.2 4.2.3 4.2.4 4.2.5 "
    "5.1 5.2 5.9 5.10 5.11 5.12 5.13 5.14 5.15 5.16 5.17 5.18 6.3.1 6.3.2 6.4.1 6.4.2 6.4.3 6.4.4 6.6.1 6.6.3 6.6.4 6.6.6 6.6.8 6.6.10 6.8.1 "
    "6.8.2 6.10.1 6.10.2 6.10.3 6.11.5 6.12.* 6.13.* 6.14.* 6.15.1 6.16.* 6.17.* 6.18.* 6.19.* 6.20.* 6.21.* 7.1.2 7.1.3 7.1.4 7.1.5 7.1.6 "
    "7.3.* 7.5.1 7.7.* 7.9.* 7.13.*"
).split()
CLIENT = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
# Late detection of invalid UTF-8 within one fragment.
NON_STRICT = {"6.4.3", "6.4.4"}
# Before these violations the case sends a message and expects its echo, which the feed does not send.
NON_STRICT_FEED = NON_STRICT | set("3.2 3.3 3.4 4.1.3 4.1.4 4.1.5 4.2.3 4.2.4 4.2.5 5.15".split())
PASSED = {"OK", "INFORMATIONAL"}

CONFIG = """
listen: 127.0.0.1:{port}
tls: {{listen: "127.0.0.1:{tls_port}", certificate: {folder}/cert.pem, key: {folder}/key.pem}}
admin: {{listen: off}}
limits: {{message: 16MiB}}
session: {{message_timeout: 2m}}
sources:
  - {{name: sim, kind: sim, history: 1m, instruments: [{{symbol: A, start: "1", tick_size: "0.01", lot_size: "1", rate: 1/s}}]}}
"""


def python2():
    """Path of a Python 2.7, or None."""
    candidates = [os.environ.get("PYTHON2"), *sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7"))), shutil.which("python2.7")]
    for candidate in filter(None, candidates):
        ran = subprocess.run([candidate, "-c", "import sys; assert sys.version_info[:2] == (2, 7)"], capture_output=True, check=False)
        if ran.returncode == 0:
            return candidate
    return None


def install(python):
    """Installs the suite once; returns the path of `wstest`."""
    wstest = TOOLS / "py27" / "bin" / "wstest"
    if not (TOOLS / "complete").exists():
        shutil.rmtree(TOOLS, ignore_errors=True)
        TOOLS.mkdir(parents=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        run = lambda *command, **env: subprocess.run(command, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore", **env}, stderr=subprocess.DEVNULL)
        run(python, "-m", "pip", "install", *quiet, "--target", TOOLS / "boot", "virtualenv<20.22")
        run(python, "-m", "virtualenv", "--quiet", TOOLS / "py27", PYTHONPATH=str(TOOLS / "boot"))
        pip = TOOLS / "py27" / "bin" / "pip"
        run(pip, "install", *quiet, "-r", HERE / "requirements.txt")
        run(pip, "install", *quiet, "--no-deps", SUITE)
        (TOOLS / "complete").touch()
    return wstest


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


async def mute(port, server):
    """Proxy that passes everything to the server, and to the client all but data frames."""

    async def up(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            pass

    async def down(reader, writer):
        try:
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                head = await reader.readexactly(2)
                length, extended = head[1] & 127, b""
                if length >= 126:
                    extended = await reader.readexactly(2 if length == 126 else 8)
                    length = int.from_bytes(extended, "big")
                payload = await reader.readexactly(length)
                if head[0] & 8:
                    writer.write(head + extended + payload)
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        writer.close()

    async def serve(client_reader, client_writer):
        reader, writer = await asyncio.open_connection("127.0.0.1", server, limit=1 << 20)
        upward = asyncio.create_task(up(client_reader, writer))
        await down(reader, client_writer)
        upward.cancel()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20) as proxy:
        await proxy.serve_forever()


def results(folder):
    """Result of each case of a run."""
    (cases,) = json.loads((folder / "index.json").read_text()).values()
    return cases


def judge(name, cases, tolerated, expected):
    """Prints the outcome of a run; returns whether it passed."""
    behaviors = [case["behavior"] for case in cases.values()]
    failed = sorted(case for case, result in cases.items() if result["behavior"] not in PASSED and not (result["behavior"] == "NON-STRICT" and case in tolerated))
    counts = ", ".join(f"{behaviors.count(kind)} {kind}" for kind in ("OK", "INFORMATIONAL", "NON-STRICT", "FAILED"))
    complete = len(cases) == expected
    print(f"autobahn: {name}: {len(cases)} of {expected} cases: {counts}" + (f"; not passed: {' '.join(failed)}" if failed else ""), flush=True)
    return complete and not failed


def fuzz_server(wstest, name, url, cases, tolerated, expected, folder):
    """Runs the fuzzing client against a server; repeats failed cases once, alone."""

    def run(out, cases):
        spec = {"options": {"failByDrop": False}, "outdir": str(out), "servers": [{"agent": "tickcast", "url": url, "options": {"version": 18}}], "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
        (folder / "spec.json").write_text(json.dumps(spec))
        subprocess.run([wstest, "-m", "fuzzingclient", "-s", folder / "spec.json"], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return results(out)

    outcome = run(folder / name.replace(" ", "-"), cases)
    # The suite's time limits are absolute, and machines are shared.
    if failed := [case for case, result in outcome.items() if result["behavior"] == "FAILED"]:
        outcome |= run(folder / f"{name} again".replace(" ", "-"), failed)
    return judge(name, outcome, tolerated, expected)


def fuzz_client(wstest, client, folder):
    """Runs the library's client against the fuzzing server."""
    port, out = free_port(), folder / "client"
    spec = {"url": f"ws://127.0.0.1:{port}", "outdir": str(out), "cases": CLIENT, "exclude-cases": [], "exclude-agent-cases": {}}
    (folder / "spec.json").write_text(json.dumps(spec))
    # The suite's server listens on all addresses; where possible it gets a network of its own.
    script = f'ip link set lo up 2>/dev/null; "$1" -m fuzzingserver -s spec.json >server.log 2>&1 & server=$!; for _ in $(seq 200); do (: <>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.1; done; "$2" 127.0.0.1:{port}; result=$?; kill $server; exit $result'
    apart = ["unshare", "-n"] if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0 else []
    subprocess.run([*apart, "bash", "-c", script, "bash", str(wstest), client], cwd=folder, check=True, timeout=1200)
    return judge("client", results(out), NON_STRICT, 301)


def main():
    tickcast, client = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    python = python2()
    if python is None:
        print("autobahn: not run: the suite needs a Python 2.7 (PYTHON2, or a pyenv with one)")
        return 0
    wstest = install(python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
        port, tls_port, muted = free_port(), free_port(), free_port()
        (folder / "feed.yaml").write_text(CONFIG.format(port=port, tls_port=tls_port, folder=folder))
        with open(folder / "tickcast.log", "wb") as log:
            server = subprocess.Popen([tickcast, "serve", "--config", folder / "feed.yaml"], stdout=log, stderr=log)
        proxy = None
        try:
            wait_for(tls_port, server)
            pid = os.fork()
            if pid == 0:
                asyncio.run(mute(muted, port))
            proxy = pid
            runs = [
                ("echo", f"ws://127.0.0.1:{port}/echo", ECHO, NON_STRICT, 301),
                ("echo over TLS", f"wss://127.0.0.1:{tls_port}/echo", ECHO, NON_STRICT, 301),
                ("feed", f"ws://127.0.0.1:{muted}/v1/feed", FEED, NON_STRICT_FEED, 151),
            ]
            passed = [fuzz_server(wstest, *run, folder) for run in runs]
            passed.append(fuzz_client(wstest, client, folder))
        finally:
            server.kill()
            if proxy:
                os.kill(proxy, 9)
            server.wait()
            log = (folder / "tickcast.log").read_text(errors="replace")
            if "panicked" in log:
                print(log)
                passed = [False]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
