"""Workers for tests of checks, after a real one that deadlocked itself ten times a day.

worker: takes an element from queue.json every --every seconds, writes status.json, and notes what it took in done.txt.
    After --after elements its watcher's thread and its asyncio loop wait for each other, for ever. With --once only
    the first start does so. It handles SIGTERM in the loop, so that a deadlocked one does not heed it, and SIGUSR1 by
    faulthandler.
producer: adds an element to queue.json every --every seconds.
"""

import argparse
import asyncio
import faulthandler
import fcntl
import json
import os
import signal
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["worker", "producer"])
parser.add_argument("--every", type=float, default=0.1)
parser.add_argument("--after", type=int, default=0, help="0: never")
parser.add_argument("--once", action="store_true")
options = parser.parse_args()


def write(path, value):
    """Replaces a file atomically."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file)
    os.replace(path + ".tmp", path)


def change_queue(change):
    """Changes the queue while the other side does not."""
    with open("queue.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with open("queue.json") as file:
                queue = json.load(file)
        except FileNotFoundError:
            queue = []
        result = change(queue)
        write("queue.json", queue)
        return result


def take_one():
    element = change_queue(lambda queue: queue.pop(0) if queue else None)
    if element is not None:
        with open("done.txt", "a") as done:
            done.write(f"{os.getpid()} {element['id']}\n")
    return element


file_lock = threading.Lock()
file_changed = threading.Event()


async def on_change():
    return 1


def observer(loop):
    file_changed.wait()
    with file_lock:
        asyncio.run_coroutine_threadsafe(on_change(), loop).result()  # waits for the loop


async def worker():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    threading.Thread(target=observer, args=(loop,), name="observer", daemon=True).start()
    taken = 0
    while True:
        write("status.json", {"pid": os.getpid(), "taken": taken, "time": time.time()})
        await asyncio.sleep(options.every)
        taken += take_one() is not None
        if options.after and taken >= options.after:
            if options.once and os.path.exists("deadlocked"):
                continue
            print("the file has changed", flush=True)
            file_changed.set()
            while not file_lock.locked():
                time.sleep(0.01)
            with open("deadlocked", "a") as mark:
                mark.write(f"{os.getpid()}\n")
            with file_lock:  # waits for the observer
                pass


def produce():
    number = int(time.time() * 1000)
    while True:
        number += 1
        change_queue(lambda queue: queue.append({"id": number}))
        time.sleep(options.every)


faulthandler.register(signal.SIGUSR1, all_threads=True)
if options.role == "worker":
    print("at work", flush=True)
    asyncio.run(worker())
else:
    produce()
