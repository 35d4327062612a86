"""A local imitation of Together's video and images API for demos, tests and benchmarks: an HTTP server on 127.0.0.1.

`prefect-together sandbox --help` says what is imitated and what is not.

May use `request` (the catalogue, what a request is), `errors`, `problems` and `clock`. Naming a sandbox imports no
web server; of the other wings only those that start one import it, when it is asked for.
"""

from prefect_together.sandbox.faults import SandboxControl
from prefect_together.sandbox.jobs import MISSING
from prefect_together.sandbox.server import Sandbox, SandboxFailed, SandboxProcess
from prefect_together.sandbox.settings import SandboxSettings

__all__ = ["MISSING", "Sandbox", "SandboxControl", "SandboxFailed", "SandboxProcess", "SandboxSettings"]
