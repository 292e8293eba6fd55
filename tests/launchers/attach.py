"""A launcher that behaves as `kubectl run -i` may: python attach.py SECONDS IDLE COMMAND...

The command starts at once; what it says in the first SECONDS is lost, as before somebody is attached. A stream without a
byte for IDLE seconds is cut. The command outlives this program, and its stdin stays open.
"""

import os
import select
import subprocess
import sys
import time

PODS_STDIN = """
import os, sys
reading, writing = os.pipe()  # the writing end stays open here, in the pod
if os.fork():
    os.dup2(reading, 0)
    os.close(reading); os.close(writing)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(reading); os.close(1)
while data := os.read(0, 65536):
    os.write(writing, data)
import time
time.sleep(float(os.environ.get("POD_LIVES", "30")))
"""


def main() -> None:
    seconds, idle, command = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    pod = subprocess.Popen(
        [sys.executable, "-S", "-c", PODS_STDIN, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert pod.stdin is not None and pod.stdout is not None
    time.sleep(seconds)  # nobody is attached yet
    os.set_blocking(pod.stdout.fileno(), False)
    pod.stdout.read()
    os.set_blocking(pod.stdout.fileno(), True)
    while True:
        ready = select.select([0, pod.stdout.fileno()], [], [], idle)[0]
        if not ready:
            sys.exit("error: the stream was idle and is closed")
        for one in ready:
            data = os.read(one, 65536)
            if not data:
                if one == 0:
                    pod.stdin.close()
                sys.exit(0)
            if one == 0:
                pod.stdin.write(data)
                pod.stdin.flush()
            else:
                os.write(1, data)


if __name__ == "__main__":
    main()
