"""Runs the original server, unchanged, with the peers' command line.

Usage: launch.py WORKDIR --socket PATH --port N

The server keeps its database and its log below the folder it is started in, so that is a new one below WORKDIR, removed
at the end. It also writes its log to stdout: that goes to /dev/null, for somebody else reads ours. What it writes to
stderr is in WORKDIR/python.err.
"""
import argparse
import contextlib
import os
import resource
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time

SERVER = "statemachine_engine.monitoring.websocket_server"


def say_ready(out, path, port):
    """The server says nothing itself, so look until both its sockets are there. Its port listens last."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            if os.path.exists(path):
                out.write("ready\n")
                out.flush()
                return
        time.sleep(0.05)


def end(*_):
    raise SystemExit(0)


def main():
    work = os.path.abspath(sys.argv[1])
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--port", required=True, type=int)
    flags = parser.parse_args(sys.argv[2:])
    path = os.path.abspath(flags.socket)

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # uvicorn stops at these, then raises them again for us.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.path.join(work, "python.err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)

    with tempfile.TemporaryDirectory(prefix="python-", dir=work) as folder:
        os.chdir(folder)
        threading.Thread(target=say_ready, args=(out, path, flags.port), daemon=True).start()
        sys.argv = [SERVER, "--host", "127.0.0.1", "--port", str(flags.port), "--event-socket-path", path]
        try:
            runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


main()
