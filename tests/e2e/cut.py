#!/usr/bin/env python3
"""Cuts the network between a server and the clients of docs/protocol.md, as they stand there, and mends it again.

Usage: cut.py THREADCAST WORKDIR [CHROMIUM]    (the script `run` prepares the libraries)

The clients run in a network namespace of their own; the server is at the other end of a pair of virtual devices. Every
wait ends by itself, and every process, namespace and device that is made here is removed here. The addresses are of
198.18.0.0/15, which is reserved for such tests (RFC 2544). Prints a line per check, and a summary.
"""
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

from support import Process, check, eventually, failed, passed, skip, skipped

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
CHROMIUM = sys.argv[3] if len(sys.argv) > 3 else None
NAME = f"tce{os.getpid()}"
HOST, THERE, PORT = "198.19.255.1", "198.19.255.2", 3025
URL = f"ws://{HOST}:{PORT}/ws/events"
EVENTS = os.path.join(WORK, "cut.sock")
BEFORE, DURING, AFTER = 5, 200, 5
BACK_WITHIN = 30.0
# A client takes a silent connection for dead after 25 s.
SILENCE = 40.0

WHAT = "the documented clients over a network cut"
# One request from the other end of the network, without a proxy that the environment may name.
CROSS = f"""
import http.client
connection = http.client.HTTPConnection({HOST!r}, {PORT}, timeout=3)
connection.request("GET", "/health")
assert connection.getresponse().read()
"""

start = functools.partial(Process, WORK)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).returncode == 0


def make_network():
    return all([
        ip("netns", "add", NAME),
        ip("link", "add", NAME, "type", "veth", "peer", "name", "eth0", "netns", NAME),
        ip("addr", "add", f"{HOST}/30", "dev", NAME),
        ip("link", "set", NAME, "up"),
        ip("-n", NAME, "link", "set", "lo", "up"),
        ip("-n", NAME, "addr", "add", f"{THERE}/30", "dev", "eth0"),
        ip("-n", NAME, "link", "set", "eth0", "up"),
    ])


def inside(*command):
    return ["ip", "netns", "exec", NAME, *command]


def start_clients():
    """The clients of the page, with its URL of the stream replaced by ours."""
    page = open(os.path.join(HERE, "../../docs/protocol.md"), encoding="utf-8").read()

    def script(language):
        path = os.path.join(WORK, f"documented.{language}")
        text = page.split(f"```{language}\n")[1].split("```")[0]
        own = "ws://localhost:3002/ws/events"
        if text.count(own) != 1:
            raise SystemExit(f"the {language} client of docs/protocol.md names {own} {text.count(own)} times")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(own, URL))
        return path

    clients = {"Python": start("Python", *inside(sys.executable, script("python")))}
    if CHROMIUM:
        # In a page of the server itself, so that no origin is foreign.
        command = inside("node", os.path.join(HERE, "console.cjs"), f"http://{HOST}:{PORT}/health", CHROMIUM, script("js"))
        modules = os.path.join(os.path.dirname(WORK), "node_modules")
        clients["JavaScript"] = start("JavaScript", *command, env={**os.environ, "NODE_PATH": modules})
    else:
        skip("the JavaScript client of docs/protocol.md over a network cut", os.environ.get("E2E_WHY", "no browser"))
    return clients


def shown(name):
    return open(os.path.join(WORK, f"{name}.log"), encoding="utf-8", errors="replace").read()


def numbers(name):
    """The numbers of our events that the client has shown, in the order of its lines."""
    words = (line.replace(":", " ").split() for line in shown(name).splitlines())
    named = (next((word for word in line if word.startswith("cut-")), None) for line in words if "tick" in line)
    return [int(word.removeprefix("cut-")) for word in named if word]


def send(numbers):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for number in numbers:
            sender.sendto(f'{{"machine_name": "cut-{number}", "type": "tick", "payload": {{}}}}'.encode(), EVENTS)


def crosses():
    """Whether a request from the other end is answered. Blocks for 20 s at most."""
    try:
        ended = subprocess.run(inside(sys.executable, "-c", CROSS), timeout=20, check=False, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def run(processes):
    flags = ["--host", HOST, "--port", str(PORT), "--event-socket-path", EVENTS, "--log-dir", "logs-cut", "--db", "none"]
    processes.append(start("server", BINARY, "serve", *flags, "--state-file", "none"))
    answers = lambda: urllib.request.urlopen(f"http://{HOST}:{PORT}/health", timeout=5).status == 200
    if not eventually(answers):
        raise SystemExit(f"threadcast does not answer; see {WORK}/server.log")
    # Where a filter, or a service that manages the host's devices, lets nothing through, the clients cannot show anything.
    nothing_crosses = f"nothing gets from a namespace of its own to {HOST}: this host lets its devices pass no packets"
    if not eventually(crosses, 20):
        skip(WHAT, nothing_crosses)
        return
    clients = start_clients()
    processes.extend(clients.values())
    for name in clients:
        connected = eventually(lambda: "the state is" in shown(name), 60)
        if not connected and not eventually(crosses, 10):
            skip(WHAT, f"{nothing_crosses} any more")
            return
        check(f"the {name} client is connected", connected, shown(name)[-800:])
    send(range(BEFORE))
    for name in clients:
        check(f"the {name} client shows events before the cut", eventually(lambda: numbers(name) == list(range(BEFORE))), shown(name)[-800:])
    ip("-n", NAME, "link", "set", "eth0", "down")
    send(range(BEFORE, BEFORE + DURING))
    # A browser may notice a device that goes; whoever does not has its timer.
    gone = lambda name: "nothing came in time" in shown(name) or "connecting again" in shown(name)
    for name in clients:
        check(f"the {name} client notices the cut", eventually(lambda: gone(name), SILENCE), shown(name)[-800:])
    ip("-n", NAME, "link", "set", "eth0", "up")
    back = time.monotonic()
    everything = list(range(BEFORE + DURING))
    for name in clients:
        left = max(0.0, BACK_WITHIN - (time.monotonic() - back))
        eventually(lambda: len(numbers(name)) >= len(everything), left)
        took = time.monotonic() - back
        check(f"the {name} client gets every event of the cut within {BACK_WITHIN:.0f} s, once and in order", numbers(name) == everything, shown(name)[-800:])
        print(f"     {took:.1f} s after the end of the cut", flush=True)
        check(f"the {name} client was told of nothing missing", "missing" not in shown(name), shown(name)[-800:])
    send(range(BEFORE + DURING, BEFORE + DURING + AFTER))
    everything = list(range(BEFORE + DURING + AFTER))
    for name in clients:
        check(f"the {name} client goes on", eventually(lambda: numbers(name) == everything), shown(name)[-800:])


def main():
    if os.geteuid() != 0 or not shutil.which("ip"):
        skip(WHAT, "it takes root, and ip(8) of iproute2")
    else:
        shutil.rmtree(WORK, ignore_errors=True)
        os.makedirs(WORK)
        processes = []
        try:
            if make_network():
                run(processes)
            else:
                skip(WHAT, "this host lets root make no namespace or no pair of devices")
        finally:
            for process in reversed(processes):
                process.end()
            ip("link", "del", NAME)
            ip("netns", "del", NAME)
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
