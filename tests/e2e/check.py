#!/usr/bin/env python3
"""Runs threadcast with the original engine, its tools and its page, and checks what a user of them would see.

Usage: check.py THREADCAST WORKDIR [CHROMIUM]    (see the script `run` beside this file, which prepares all of it)

Every wait ends by itself; every process that is started here is ended here. Prints a line per check, and a summary.
"""
import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import websockets
import websockets.sync.client

import support
from support import DEADLINE, check, eventually, failed, passed, skip, skipped

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
CHROMIUM = sys.argv[3] if len(sys.argv) > 3 else None
BIN = os.path.dirname(sys.executable)
# The tools of the original have these written into them.
EVENTS, PORT, UI_PORT = "/tmp/statemachine-events.sock", 3002, 3001
URL = f"ws://localhost:{PORT}/ws/events"
# A worker of this type, which one of the checks makes, is stuck in its job after 3 s; other checks may load this host.
FLAGS = ["--stuck", "stopped/processing=3s", "--stuck-cpu-pressure", "100"]
# The original stands still for 5 s at a time while its database is locked.
LOCKED, LATE = 60.0, 2.0
BURST = 500

Process = functools.partial(support.Process, WORK)


def get(path):
    with urllib.request.urlopen(f"http://localhost:{PORT}{path}", timeout=5) as answer:
        return json.load(answer)


def states():
    return {row["machine_name"]: row["current_state"] for row in get("/initial")["machines"]}


def row(machine):
    return next((row for row in get("/initial")["machines"] if row["machine_name"] == machine), {})


def database(sql):
    """All rows that a statement gives, of the engines' database."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{WORK}/data/pipeline.db?mode=ro", uri=True)) as engine:
            return engine.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []


def said():
    """What the servers have said."""
    return open(os.path.join(WORK, "threadcast.log"), encoding="utf-8").read()


def start_server():
    server = Process("threadcast", BINARY, "serve", *FLAGS)
    if not eventually(lambda: get("/health")["status"] == "ok"):
        raise SystemExit(f"threadcast does not answer; see {WORK}/threadcast.log")
    return server


def tool(name, *arguments):
    command = [os.path.join(BIN, name), *arguments]
    return subprocess.run(command, cwd=WORK, capture_output=True, text=True, timeout=60, check=False)


def send_event(target, kind, *more):
    return tool("statemachine-db", "send-event", "--target", target, "--type", kind, *more)


def start_engine(name, recipe=os.path.join(HERE, "worker.yaml")):
    return Process(f"engine-{name}", os.path.join(BIN, "statemachine"), recipe, "--machine-name", name)


class Keeper(threading.Thread):
    """A Python client with default settings, which pings every 20 s and gives up 20 s later."""

    def __init__(self, **options):
        super().__init__(daemon=True)
        self.options = options
        self.messages, self.closed, self.since = [], None, time.monotonic()
        self.start()

    def run(self):
        asyncio.run(self.stay())

    async def stay(self):
        try:
            async with websockets.connect(URL, **self.options) as client:
                async for message in client:
                    self.messages.append(message)
                self.closed = (client.close_code, client.close_reason)
        except websockets.ConnectionClosed as error:
            self.closed = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


class Locker(threading.Thread):
    """Keeps the engines' database for itself, and measures meanwhile whether anybody who watches has to wait."""

    def __init__(self):
        super().__init__(daemon=True)
        self.error, self.delays, self.joins, self.states = None, [], [], set()
        self.start()

    def run(self):
        try:
            with contextlib.closing(sqlite3.connect(os.path.join(WORK, "data/pipeline.db"), timeout=30)) as engine:
                engine.execute("BEGIN EXCLUSIVE")
                self.watch(time.monotonic() + LOCKED)
                engine.rollback()
        except (OSError, ValueError, sqlite3.Error, websockets.WebSocketException) as error:
            self.error = repr(error)

    def watch(self, end):
        with websockets.sync.client.connect(URL) as client, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            client.recv(DEADLINE)
            while time.monotonic() < end:
                event = {"machine_name": "nobody", "type": "tick", "payload": {"n": len(self.delays)}}
                begun = time.monotonic()
                sender.sendto(json.dumps(event).encode(), EVENTS)
                while json.loads(client.recv(DEADLINE)) != event:
                    pass
                self.delays.append(time.monotonic() - begun)
                if len(self.delays) % 50 == 0:
                    self.join_in()
                time.sleep(0.1)

    def join_in(self):
        begun = time.monotonic()
        with websockets.sync.client.connect(URL) as client:
            initial = json.loads(client.recv(DEADLINE))
        known = [{row["machine_name"] for row in rows["machines"]} for rows in (initial, get("/initial"))]
        self.joins.append(time.monotonic() - begun)
        if not all({"e2e_000", "e2e_001"} <= names for names in known):
            raise ValueError(f"an initial has {known} only")
        self.states.add(get("/health")["engine_db"]["state"])

    def judge(self):
        self.join(LOCKED + DEADLINE)
        check("a lock of the engines' database ends nothing", self.error is None and not self.is_alive(), self.error)
        if not self.delays or not self.joins:
            return
        print(f"     {len(self.delays)} events while the database was locked for {LOCKED:.0f} s: the slowest took {max(self.delays) * 1000:.1f} ms; "
              f"{len(self.joins)} newcomers: the slowest took {max(self.joins) * 1000:.1f} ms", flush=True)
        check("a lock of the engines' database delays no event", len(self.delays) > LOCKED and max(self.delays) < LATE, self.delays)
        check("a lock of the engines' database delays no newcomer", max(self.joins) < LATE, self.joins)
        check("/health knows of the lock", "locked" in self.states, self.states)
        named = f"cannot be read: process {os.getpid()} (", "cannot be read: another process has locked it"
        check("threadcast has said who has locked it", any(line in said() for line in named), said()[-800:])
        check("threadcast reads the database again", eventually(lambda: "can be read again" in said()), said()[-800:])


class Page:
    def __init__(self):
        self.child = Process(
            "page", "node", os.path.join(HERE, "page.cjs"), f"http://localhost:{UI_PORT}/", CHROMIUM,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "NODE_PATH": os.path.join(os.path.dirname(WORK), "node_modules")},
        )
        self.answer()

    def answer(self):
        line = self.child.child.stdout.readline()
        if not line:
            raise OSError(f"the browser has ended; see {WORK}/page.log")
        return json.loads(line)

    def ask(self, **question):
        self.child.child.stdin.write(json.dumps(question) + "\n")
        self.child.child.stdin.flush()
        return self.answer()

    def shows(self, name, state):
        return eventually(lambda: self.ask(ask="cards").get(name, "absent").strip() == (state or "absent"), 60)


def start_ui(*flags):
    ui = Process("ui", os.path.join(BIN, "statemachine-ui"), "--project-root", WORK, *flags)
    up = eventually(lambda: urllib.request.urlopen(f"http://localhost:{UI_PORT}/", timeout=5).status == 200, 120)
    return ui, bool(up)


def engine_of_before(processes):
    """An engine that was there before any server; whatever it has sent went nowhere."""
    engine = start_engine("e2e_000")
    processes.append(engine)
    known = lambda: database("SELECT 1 FROM machine_state WHERE machine_name = 'e2e_000' AND current_state = 'waiting'")
    eventually(known)
    # The events of its start are its past: a server recovers those of its own time.
    time.sleep(1.5)
    return engine


def killed_engine(processes, engine):
    pid = row("e2e_000") and database("SELECT pid FROM machine_state WHERE machine_name = 'e2e_000'")[0][0]
    check("a living engine is not stale", "stale" not in row("e2e_000"), row("e2e_000"))
    engine.end(signal.SIGKILL)
    check("a killed engine is stale in /initial", eventually(lambda: row("e2e_000").get("stale") is True), row("e2e_000"))
    stale = get("/status")["stale_machines"]
    check("a killed engine is stale in /status", [(each["machine"], each["pid"]) for each in stale] == [("e2e_000", pid)], stale)
    check("/health counts it", get("/health")["engine_db"]["stale"] == 1, get("/health")["engine_db"])
    processes.append(start_engine("e2e_000"))
    check("it is not stale when it runs again", eventually(lambda: row("e2e_000") and "stale" not in row("e2e_000")), row("e2e_000"))
    send_event("e2e_000", "stop")
    check("it leaves when it ends", eventually(lambda: not row("e2e_000")), row("e2e_000"))


def burst(server):
    """More than the kernel takes for a server that stands still: the engine writes the rest to its database."""
    plain, v1 = Keeper(), Keeper(subprotocols=["threadcast.v1"])
    eventually(lambda: plain.messages and len(v1.messages) >= 2)
    standing = lambda: open(f"/proc/{server.child.pid}/stat", encoding="utf-8").read().rsplit(") ")[1].startswith("T")
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        eventually(standing)
        command = [sys.executable, os.path.join(HERE, "burst.py"), "e2e_burst", str(BURST)]
        with open(os.path.join(WORK, "burst.log"), "ab") as log:
            status = subprocess.run(command, cwd=WORK, stdout=log, stderr=log, timeout=120, check=False).returncode
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    check("the engine emits a burst", status == 0, status)
    refused = database("SELECT count(*) FROM realtime_events WHERE machine_name = 'e2e_burst'")[0][0]
    ours = lambda keeper: [text for text in list(keeper.messages) if '"e2e_burst"' in text and '"type":"initial"' not in text]
    eventually(lambda: len(ours(plain)) >= BURST and len(ours(v1)) >= BURST)
    # Whatever comes twice may take a look or two.
    time.sleep(3)
    events = [json.loads(text) for text in ours(plain)]
    numbers = [event["payload"]["n"] for event in events]
    check("a plain client gets every event of the burst, once", sorted(numbers) == list(range(BURST)), sorted(numbers))
    messages = [json.loads(text) for text in ours(v1)]
    numbers = [message["event"]["payload"]["n"] for message in messages]
    check("a v1 client gets every event of the burst, once", sorted(numbers) == list(range(BURST)), sorted(numbers))
    recovered = [message["event"]["payload"]["n"] for message in messages if message.get("recovered") is True]
    print(f"     {refused} of {BURST} events were refused by the kernel and recovered from the database", flush=True)
    check("those that were refused are marked as recovered, in their order", 0 < len(recovered) == refused and recovered == sorted(recovered), (refused, recovered))


def engine_and_tools(processes):
    monitor = Process("monitor", os.path.join(BIN, "statemachine-events"), "--format", "json")
    processes.append(monitor)
    eventually(lambda: get("/health")["connections"] >= 2)
    processes.append(start_engine("e2e_001"))
    check("a real engine registers", eventually(lambda: states().get("e2e_001") == "waiting"), states())
    for kind, state in [("new_job", "processing"), ("job_done", "waiting")]:
        send_event("e2e_001", kind)
        check(f"statemachine-db send-event {kind}: the engine is {state}", eventually(lambda: states().get("e2e_001") == state), states())
    send_event("nobody", "activity_log", "--payload", '{"message": "hello from the CLI", "level": "success"}')
    seen = lambda: open(os.path.join(WORK, "monitor.log"), encoding="utf-8").read()
    check("statemachine-events shows the engine's events", eventually(lambda: "new_job" in seen()), seen()[-500:])
    check("statemachine-events shows what the CLI sent", eventually(lambda: "hello from the CLI" in seen()), seen()[-500:])


def stopped_worker(processes, page=None):
    """A worker that stands still in the middle of its job (SIGSTOP), and goes on, before all who watch."""
    name, recipe = "e2e_stopped", os.path.join(WORK, "stopped.yaml")
    shutil.copy(os.path.join(HERE, "worker.yaml"), recipe)
    plain, v1 = Keeper(), Keeper(subprotocols=["threadcast.v1"])
    engine = start_engine(name, recipe)
    processes.append(engine)
    eventually(lambda: states().get(name) == "waiting" and plain.messages and v1.messages)
    send_event(name, "new_job")
    # Its event comes before its row; it must not stand still while it holds the database's lock.
    eventually(lambda: database(f"SELECT 1 FROM machine_state WHERE machine_name = '{name}' AND current_state = 'processing'"))
    errors = page and page.ask(ask="errors")
    told = lambda: [event for event in (json.loads(text).get("event", {}) for text in list(v1.messages)) if event.get("server")]
    kinds = lambda: [event["type"] for event in told()]
    os.kill(engine.child.pid, signal.SIGSTOP)
    try:
        # What would end its job reaches it only when it goes on.
        sent = send_event(name, "job_done")
        check("a worker under SIGSTOP can be sent to", sent.returncode == 0, sent)
        found = eventually(lambda: kinds() in (["machine_stuck"], ["machine_silent"]))
        check("a worker under SIGSTOP is found", found and told()[0]["machine_name"] == name, told())
        health = get("/health")
        check("/health names it and is ok", health["status"] == "ok" and any(f"machine {name} (type stopped) is s" in reason for reason in health["reasons"]), health)
        if page:
            check("the page shows its state as before", page.shows(name, "processing"), page.ask(ask="cards"))
    finally:
        os.kill(engine.child.pid, signal.SIGCONT)
    check("its return is told", eventually(lambda: kinds()[1:] == ["machine_moves_again"]), told())
    check("it has gone on with its job", eventually(lambda: states().get(name) == "waiting"), states())
    check("/health forgets it", eventually(lambda: not any(name in reason for reason in get("/health")["reasons"])), get("/health"))
    if page:
        check("the page shows that it has gone on", page.shows(name, "waiting"), page.ask(ask="cards"))
        cards, rows = page.ask(ask="cards"), page.ask(ask="log")
        check("no notice shows on the page", not any(word in row for row in rows for word in ["machine_stuck", "machine_silent", "moves_again"]), rows)
        check("no card of the page is odd", all(card in states() for card in cards), cards)
        check("no script of the page has failed", page.ask(ask="errors") == errors, (errors, page.ask(ask="errors")))
    seen = [text for text in plain.messages if '"server":' in text or "machine_stuck" in text or "machine_silent" in text]
    check("no notice reaches a plain client", not seen, seen)
    send_event(name, "stop")
    check("the worker leaves when it ends", eventually(lambda: name not in states()), states())


def page_lives(processes, server):
    """The page through a change of state, a restart of the server, and the end of a machine."""
    page = Page()
    processes.append(page.child)
    check("the page shows the machine that was there before it", page.shows("e2e_001", "waiting"), page.ask(ask="cards"))
    processes.append(start_engine("e2e_002"))
    check("a new machine's card appears", page.shows("e2e_002", "waiting"), page.ask(ask="cards"))
    send_event("e2e_002", "new_job")
    check("a card changes its state", page.shows("e2e_002", "processing"), page.ask(ask="cards"))
    page.ask(ask="screenshot", path=os.path.join(WORK, "page.png"))
    stopped_worker(processes, page)

    server.end(signal.SIGKILL)
    server = start_server()
    processes.append(server)
    check("a killed server knows its machines again", states() == {"e2e_001": "waiting", "e2e_002": "processing"}, states())
    check("the page comes back by itself after the server was killed", eventually(lambda: get("/health")["connections"] >= 1, 60), get("/health"))
    # An engine that has lost its server tries to connect every 5 s; what it sends before is recovered from its database.
    send_event("e2e_002", "job_done")
    check("engine and page go on with the new server", page.shows("e2e_002", "waiting"), page.ask(ask="cards"))
    others = database("SELECT count(*) FROM realtime_events WHERE machine_name <> 'e2e_burst'")[0][0]
    check("a new server does not repeat what was recovered", get("/health")["engine_db"]["recovered"] <= others, get("/health")["engine_db"])
    check("the machine that was silent meanwhile is still right", page.shows("e2e_001", "waiting"), page.ask(ask="cards"))
    send_event("e2e_002", "stop")
    check("the card of a machine that ends goes", page.shows("e2e_002", None), page.ask(ask="cards"))
    return server


def page_with_its_own_server():
    """The page's own Python server unlinks our socket, finds the port taken, and takes the path with it."""
    ui, up = start_ui()
    try:
        check("the page starts without --no-websocket", up)
        ours = lambda: get("/health")["unix_socket_active"] and os.path.exists(EVENTS)
        check("threadcast has its socket path back", eventually(ours), get("/health"))
        before = get("/health")["events_forwarded"]
        send_event("nobody", "activity_log", "--payload", '{"message": "still there?"}')
        check("threadcast is not deaf", eventually(lambda: get("/health")["events_forwarded"] > before), get("/health"))
        log = said()
        check("threadcast has said loudly what happened", "event socket" in log and ("bound it again" in log or "has taken" in log), log[-800:])
    finally:
        ui.end()


def documented_clients(processes, server):
    """The clients of docs/protocol.md, as they stand there, through a loss and a new server."""
    page = open(os.path.join(HERE, "../../docs/protocol.md"), encoding="utf-8").read()

    def start(language, *command, **options):
        script = os.path.join(WORK, f"documented.{language}")
        with open(script, "w", encoding="utf-8") as file:
            file.write(page.split(f"```{language}\n")[1].split("```")[0])
        processes.append(Process(f"documented-{language}", *command, script, **options))
        return os.path.join(WORK, f"documented-{language}.log")

    logs = {"Python": start("python", sys.executable)}
    if CHROMIUM:
        modules = os.path.join(os.path.dirname(WORK), "node_modules")
        command = ["node", os.path.join(HERE, "console.cjs"), f"http://localhost:{PORT}/health", CHROMIUM]
        logs["JavaScript"] = start("js", *command, env={**os.environ, "NODE_PATH": modules})
    else:
        skip("the JavaScript client of docs/protocol.md", os.environ.get("E2E_WHY", "no browser"))
    shown = lambda log: open(log, encoding="utf-8").read()
    events = lambda log: sum("activity_log" in line for line in shown(log).splitlines())
    eventually(lambda: all("the state is" in shown(log) for log in logs.values()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"no event", EVENTS)
    send_event("nobody", "activity_log", "--payload", '{"message": "before"}')
    for name, log in logs.items():
        seen = lambda: "not_json" in shown(log) and events(log) == 1
        check(f"the {name} client of docs/protocol.md shows a loss and an event", eventually(seen), shown(log))
    server.end(signal.SIGKILL)
    server = start_server()
    processes.append(server)
    eventually(lambda: all(shown(log).count("the state is") == 2 for log in logs.values()))
    send_event("nobody", "activity_log", "--payload", '{"message": "after"}')
    for name, log in logs.items():
        seen = lambda: shown(log).count("epoch") == 1 and events(log) == 2
        check(f"the {name} client of docs/protocol.md goes on with a new server", eventually(seen), shown(log))
    return server


def main():
    # Nothing of an earlier run may count: neither its database nor its machines.
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        probe.connect(EVENTS)
        raise SystemExit(f"a server receives at {EVENTS}; the original's tools know no other path, so end it first")
    processes = []
    try:
        before = engine_of_before(processes)
        server = start_server()
        processes.append(server)
        keeper = Keeper()
        eventually(lambda: keeper.messages)
        rows = [(row["machine_name"], row["current_state"], row["config_type"]) for row in json.loads(keeper.messages[0])["machines"]]
        check("an engine of before is in the first initial", rows == [("e2e_000", "waiting", "worker")], keeper.messages[0])
        engine_and_tools(processes)
        locker = Locker()
        if CHROMIUM:
            ui, up = start_ui("--no-websocket")
            processes.append(ui)
            check("the page's server starts with --no-websocket", up)
            # Its restart of the server would end the keeper early, so the keeper's time comes first.
        kept = max(0.0, keeper.since + 65 - time.monotonic())
        print(f"     waiting {kept:.0f} s: several keepalives of a Python client", flush=True)
        time.sleep(kept)
        pings = sum('"type":"ping"' in message for message in keeper.messages)
        check("a Python client stays over several of its keepalives", keeper.closed is None and pings >= 5, (keeper.closed, pings))
        locker.judge()
        killed_engine(processes, before)
        burst(server)
        if CHROMIUM:
            server = page_lives(processes, server)
            ui.end()
            page_with_its_own_server()
        else:
            stopped_worker(processes)
            for name in ["the page in a browser", "the page with a server of its own"]:
                skip(name, os.environ.get("E2E_WHY", "no browser"))
        server = documented_clients(processes, server)
        last = Keeper()
        eventually(lambda: last.messages)
        status = server.end()
        check("SIGTERM ends the server with status 0", status == 0, status)
        check("a Python client is told 1012", eventually(lambda: last.closed) and last.closed[0] == 1012, last.closed)
        check("the socket file is gone", not os.path.exists(EVENTS))
    finally:
        for process in reversed(processes):
            process.end()
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
