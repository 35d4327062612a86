"""Runs the command in its arguments and prints, as its last line, what the command used.

A new process inherits its parent's peak memory: this small program is the parent so that a peer's peak is its own.
"""

import json
import os
import subprocess
import sys
import time

started_at = time.time()
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
kilo = 1 if sys.platform == "darwin" else 1024
figures = {
    "started_at": started_at,
    "all_seconds": time.time() - started_at,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_bytes": used.ru_maxrss * kilo,
}
print(f"\nUSED {json.dumps(figures)}", flush=True)
sys.exit(process.returncode)
