"""Locks between processes."""

import os
import signal
import time

from trime_fairseq.files import Lock


def test_children_of_a_killed_process_hold_no_lock(tmp_path):
    path = str(tmp_path / "lock")
    ready, tell = os.pipe()
    parent = os.fork()
    if not parent:
        # Without returning to pytest, whatever happens.
        try:
            assert Lock(path).acquire()
            if not os.fork():
                os.write(tell, b"%d" % os.getpid())
            time.sleep(60)
        finally:
            os._exit(0)
    orphan = int(os.read(ready, 20))
    try:
        lock = Lock(path)
        assert not lock.acquire()
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(orphan, 0)  # it is there still
        assert lock.acquire()
    finally:
        os.kill(orphan, signal.SIGKILL)
