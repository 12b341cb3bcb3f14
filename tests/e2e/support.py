"""What the scripts beside this file share: checks and their count, waits, and children that do not outlive a script."""
import contextlib
import os
import signal
import subprocess
import time

DEADLINE = 30.0

passed, failed, skipped = [], [], []


def check(name, ok, detail=""):
    (passed if ok else failed).append(name)
    print(f"{'ok  ' if ok else 'FAIL'} {name}{'' if ok else f': {detail}'}", flush=True)


def skip(name, why):
    skipped.append(name)
    print(f"SKIPPED: {name}: {why}", flush=True)


def eventually(condition, deadline=DEADLINE):
    """The first true value of condition() until the deadline, else its last value; None if that was an error."""
    end = time.monotonic() + deadline
    while True:
        try:
            value = condition()
        except (OSError, ValueError, LookupError):
            value = None
        if value or time.monotonic() >= end:
            return value
        time.sleep(0.05)


class Process:
    """A child in a process group of its own, which runs in a folder and writes into NAME.log there."""

    def __init__(self, folder, name, *command, **options):
        self.log = os.path.join(folder, f"{name}.log")
        with open(self.log, "ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, **options}
            self.child = subprocess.Popen(command, stderr=log, cwd=folder, start_new_session=True, **options)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def end(self, sig=signal.SIGTERM):
        """Ends it, with all that it started; its exit status."""
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, sig)
        try:
            return self.child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            return self.child.wait(10)
