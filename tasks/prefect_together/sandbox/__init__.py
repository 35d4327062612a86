"""A local imitation of Together's video and images API for demos, tests and benchmarks: an HTTP server on 127.0.0.1.

Imitated: POST /v2/videos, GET /v2/videos/ID, the clips behind their short links, GET /v1/models and GET /v3/whoami,
in all three documented response shapes; POST /v1/images/generations with its pictures; jobs that queue, generate,
complete and fail as together-api.md says; limits, faults and expiring links on demand. Clips and pictures show their
prompt; they have the size, and clips the length and rate, that were asked for.

A clip begins with the picture sent as its first frame and ends with the one sent as its last; between them the drawn
scene comes in. One that continues a video (`frame_videos`) begins with all frames of it, `seconds` being the total.
Pictures are taken inline or from the sandbox's own links, videos from its own links, without the network; an own link
that has expired makes the job fail.

Not imitated: any model (clips and pictures are drawn scenes); what all other pictures, videos and sounds that were
sent do to a clip; the checks of addresses elsewhere (they are not fetched); moderation; organizations, balances and
the true limits of rate and size; TLS, HTTP/2 and the content delivery network; every other endpoint of Together.
Prices are this package's estimates, failed jobs cost nothing.

May use `request` (the catalogue, what a request is), `errors`, `clock` and `retry_after`. Naming a sandbox imports no
web server; of the other wings only those that start one import it, when it is asked for.
"""

from prefect_together.sandbox.faults import SandboxControl
from prefect_together.sandbox.jobs import MISSING
from prefect_together.sandbox.server import Sandbox, SandboxFailed, SandboxProcess
from prefect_together.sandbox.settings import SandboxSettings

__all__ = ["MISSING", "Sandbox", "SandboxControl", "SandboxFailed", "SandboxProcess", "SandboxSettings"]
