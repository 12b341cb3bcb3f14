#!/usr/bin/env python3
"""Runs threadcast behind real proxies, with the configurations of docs/operating.md, and under real probes.

Usage: proxies.py THREADCAST WORKDIR    (see the script `proxies` beside this file, which prepares all of it)

Needs nothing but the standard library. Everything listens on loopback, on free ports. Every wait ends by itself; every
process that is started here is ended here, by its id. Prints a line per check, and a summary.
"""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import support
from support import check, eventually, failed, passed, skip, skipped

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
PAGE = open(os.path.join(HERE, "../../docs/operating.md"), encoding="utf-8").read()
HOST, ORIGIN, UPSTREAM = "dash.example.com", "http://dash.example.com", "upstream_name"

processes = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def documented(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL).group(1)


class Process(support.Process):
    def __init__(self, name, *command):
        # Caddy keeps things below its home.
        env = {**os.environ, "HOME": WORK, "XDG_CONFIG_HOME": WORK, "XDG_DATA_HOME": WORK}
        super().__init__(WORK, name, *command, env=env)
        processes.append(self)


class Server(Process):
    def __init__(self, name, *flags):
        self.events = os.path.join(WORK, f"{name}.sock")
        super().__init__(name, BINARY, "serve", "--port", "0", "--event-socket-path", self.events, "--state-file", "none",
                         "--db", "none", "--log-dir", name, *flags)
        found = eventually(lambda: re.search(r"listens on http://127\.0\.0\.1:(\d+)", self.said()))
        if not found:
            raise SystemExit(f"threadcast does not start; see {self.log}")
        self.port = int(found.group(1))

    def send(self, event):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(json.dumps(event).encode(), self.events)

    def drill(self, duration):
        command = [BINARY, "drill", "fanout", duration, "--url", f"http://localhost:{self.port}"]
        return subprocess.run(command, cwd=WORK, capture_output=True, text=True, timeout=30, check=False)


def read_head(reader):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline(65536)
        if not line:
            break
        head += line
    return head.decode()


def read_body(head, reader):
    """What stands behind a head; a proxy may keep the connection."""
    length = re.search(r"(?i)^content-length: (\d+)", head, re.MULTILINE)
    return reader.read(int(length.group(1)) if length else -1).decode()


def status_of(head):
    return int(head.split(" ")[1])


def ask(port, path, host=HOST, method="GET", *headers):
    """The status of an answer, and its text."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        with connection.makefile("rb") as reader:
            head = read_head(reader)
            return status_of(head), head + reader.read().decode()


class WebSocket:
    """A browser's WebSocket, as far as it is needed here."""

    def __init__(self, port, host=HOST, origin=ORIGIN):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET /ws/events HTTP/1.1", f"Host: {host}", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        lines += [f"Origin: {origin}"] if origin else []
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.reader = self.connection.makefile("rb")
        head = read_head(self.reader)
        self.status = status_of(head)
        self.text = head if self.status == 101 else head + read_body(head, self.reader)

    def message(self):
        while True:
            first, length = self.reader.read(2)
            if length == 126:
                length = int.from_bytes(self.reader.read(2), "big")
            elif length == 127:
                length = int.from_bytes(self.reader.read(8), "big")
            payload = self.reader.read(length)
            if first & 15 == 1:
                return json.loads(payload)

    def close(self):
        self.reader.close()
        self.connection.close()


def streams(server, port, name, **options):
    """Checks that a page gets the state and an event through a proxy."""
    client = WebSocket(port, **options)
    try:
        if client.status != 101:
            check(f"{name}: a WebSocket", False, client.text)
            return
        first = client.message()
        event = {"machine_name": "m", "type": "tick", "payload": {"through": name}}
        server.send(event)
        got = client.message()
        while got["type"] == "ping":
            got = client.message()
        check(f"{name}: a WebSocket", first["type"] == "initial" and got == event, (first, got))
    finally:
        client.close()


def up(port):
    """Whether a proxy listens. What it answers is another question."""
    return eventually(lambda: ask(port, "/health")[0])


def start_nginx(name, *servers):
    config = os.path.join(WORK, f"{name}.conf")
    temporary = "".join(f"    {kind}_temp_path {WORK}/{name}-{kind};\n"
                        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"daemon off;\npid {WORK}/{name}.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n    access_log off;\n"
                   f"{temporary}{''.join(servers)}}}\n")
    return Process(name, "nginx", "-p", WORK, "-c", config)


def nginx(server):
    right, plain, named = free_port(), free_port(), free_port()
    upstream = f"upstream {UPSTREAM} {{ server 127.0.0.1:{server.port}; }}\n"
    block = lambda port, lines: f"server {{ listen 127.0.0.1:{port}; location / {{ {lines} }} }}\n"
    own = documented("nginx").replace("listen 80;", f"listen 127.0.0.1:{right};").replace(":3002", f":{server.port}")
    start_nginx("nginx", own, upstream, block(plain, f"proxy_pass http://127.0.0.1:{server.port};"),
                block(named, f"proxy_pass http://{UPSTREAM};"))
    if not up(right):
        check("nginx starts", False, open(os.path.join(WORK, "nginx.log"), encoding="utf-8").read())
        return
    streams(server, right, "nginx as documented")
    status, text = ask(right, "/ws/events")
    check("nginx as documented: the stream's address in a browser is 426", status == 426, text)
    check("nginx as documented: HEAD", ask(right, "/health", method="HEAD")[0] == 200)
    refused = WebSocket(plain)
    check("nginx by default: 426", refused.status == 426, refused.text)
    cure = re.search(r"\(nginx: ([^)]*)\)", refused.text)
    check("nginx by default: the answer names the lines", bool(cure), refused.text)
    refused.close()
    said = eventually(lambda: "WARN" in server.said() and "proxy_set_header Upgrade" in server.said())
    check("nginx by default: the log names the lines", bool(said), server.said()[-800:])
    status, foreign = ask(named, "/health")
    line = re.search(r"\(nginx: ([^)]*)\)", foreign)
    flag = re.search(r"start it with --allow-origin (\S+?)\"", foreign)
    check("nginx with an upstream's name: 403 with the remedies", status == 403 and line and flag, foreign)
    if cure and line and flag:
        nginx_cured(server, cure.group(1), line.group(1), flag.group(1))


def nginx_cured(server, upgrade, host, flag):
    """What the answers recommend is put into the configuration, and tried."""
    allowing = Server("allowing", "--allow-origin", flag)
    plain, named, allowed = free_port(), free_port(), free_port()
    block = lambda port, lines: f"server {{ listen 127.0.0.1:{port}; location / {{ {lines} }} }}\n"
    start_nginx(
        "nginx-cured",
        f"upstream {UPSTREAM} {{ server 127.0.0.1:{allowing.port}; }}\nupstream other_name {{ server 127.0.0.1:{server.port}; }}\n",
        block(plain, f"proxy_pass http://127.0.0.1:{server.port}; {upgrade}"),
        block(named, f"proxy_pass http://other_name; {host} {upgrade}"),
        block(allowed, f"proxy_pass http://{UPSTREAM}; {upgrade}"))
    if not up(plain):
        check("nginx starts with the remedies", False, open(os.path.join(WORK, "nginx-cured.log"), encoding="utf-8").read())
        return
    streams(server, plain, "nginx with the lines of the 426")
    streams(server, named, "nginx with the line of the 403")
    check("nginx with the flag of the 403", ask(allowed, "/health")[0] == 200, ask(allowed, "/health")[1])
    streams(allowing, allowed, "nginx with the flag of the 403", origin=None)


class Haproxy:
    def __init__(self, server):
        self.port, self.control = free_port(), os.path.join(WORK, "haproxy.sock")
        config = os.path.join(WORK, "haproxy.cfg")
        own = documented("haproxy").replace("bind :80", f"bind 127.0.0.1:{self.port}").replace(":3002", f":{server.port}")
        # The same backend again, with the other check.
        head = own[own.index("\nbackend threadcast"):].replace("backend threadcast", "backend head")
        head = head.replace("option httpchk", "option httpchk HEAD /health")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"global\n    stats socket {self.control} level admin\n\n{own}\n{head}")
        self.process = Process("haproxy", "haproxy", "-db", "-f", config)
        self.server = server

    def states(self):
        """What each check says: the state and the status of the last answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(self.control)
            control.sendall(b"show stat\n")
            text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
        rows = [line.split(",") for line in text.splitlines() if line]
        names = rows[0]
        row = lambda cells: dict(zip(names, cells))
        found = [row(cells) for cells in rows[1:] if cells[1] == "threadcast"]
        return {each["# pxname"]: (each["status"], each["check_code"]) for each in found}

    def are(self, state, options, head):
        wanted = {"threadcast": (state, options), "head": (state, head)}
        return eventually(lambda: self.states() == wanted)

    def begin(self):
        if not up(self.port):
            check("HAProxy starts", False, self.process.said())
            return
        check("HAProxy sees the server as up", self.are("UP", "204", "200"), self.states())
        streams(self.server, self.port, "HAProxy as documented")


class Caddy:
    def __init__(self, server):
        self.server, self.port = server, free_port()
        config = os.path.join(WORK, "Caddyfile")
        own = documented("caddy").replace(f"http://{HOST} {{", f"http://{HOST}:{self.port} {{")
        own = own.replace(":3002", f":{server.port}").replace("reverse_proxy", "bind 127.0.0.1\n    reverse_proxy")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"{{\n    admin off\n    auto_https off\n}}\n\n{own}")
        self.process = Process("caddy", "caddy", "run", "--adapter", "caddyfile", "--config", config)

    def status(self):
        return ask(self.port, "/status", host=f"{HOST}:{self.port}")[0]

    def begin(self):
        if not eventually(lambda: self.status() == 200):
            check("Caddy starts", False, self.process.said()[-800:])
            return
        streams(self.server, self.port, "Caddy as documented", host=f"{HOST}:{self.port}")


def probe(*command):
    return subprocess.run(command, cwd=WORK, capture_output=True, timeout=30, check=False).returncode


def probes(server):
    """The probes that are here, each with what it takes the server for."""
    url = f"http://localhost:{server.port}/health"
    known = {"wget": ("wget", "-q", "--spider", "--tries=1", url), "curl": ("curl", "-fsSI", url)}
    found = {}
    for name, command in known.items():
        if shutil.which(name):
            found[" ".join(command[:-1])] = command
        else:
            skip(f"a probe by {name}", f"no {name} here (Debian: apt-get install {name})")
    return found


def standing_still(server, haproxy, caddy):
    """What each of them says of a server whose fan-out hangs, and of one that goes on."""
    found = probes(server)
    for name, command in found.items():
        check(f"{name} takes the server for up", probe(*command) == 0)
    ordered = server.drill("60s")
    check("a drill begins", ordered.returncode == 0, ordered.stderr)
    check("/health is hung", eventually(lambda: ask(server.port, "/health")[0] == 503))
    for name, command in found.items():
        check(f"{name} takes a server that hangs for down", probe(*command) not in (0, None))
    if haproxy:
        check("HAProxy sees a server that hangs as down", haproxy.are("DOWN", "503", "503"), haproxy.states())
    if caddy:
        # The server itself answers this page, so it is Caddy that has taken it out.
        gone = eventually(lambda: caddy.status() >= 500 and ask(server.port, "/status")[0] == 200)
        check("Caddy takes a server that hangs out of its list", gone, caddy.status())
    server.drill("0s")
    check("/health is well again", eventually(lambda: ask(server.port, "/health")[0] == 200))
    for name, command in found.items():
        check(f"{name} takes it for up again", probe(*command) == 0)
    if haproxy:
        check("HAProxy sees it as up again", haproxy.are("UP", "204", "200"), haproxy.states())
    if caddy:
        check("Caddy sees it as up again", eventually(lambda: caddy.status() == 200), caddy.status())


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    # The proxies' workers may be other users.
    os.chmod(WORK, 0o755)
    have = {}
    for name in ["nginx", "haproxy", "caddy"]:
        have[name] = shutil.which(name)
        if not have[name]:
            skip(f"threadcast behind {name}", f"no {name} here (Debian: apt-get install {name})")
    try:
        server = Server("server", "--allow-origin", ORIGIN, "--allow-drill", "--hang-timeout", "1s")
        if have["nginx"]:
            nginx(server)
        haproxy = Haproxy(server) if have["haproxy"] else None
        if haproxy:
            haproxy.begin()
        caddy = Caddy(server) if have["caddy"] else None
        if caddy:
            caddy.begin()
        standing_still(server, haproxy, caddy)
    finally:
        for process in reversed(processes):
            process.end()
    print(f"proxies and probes: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
