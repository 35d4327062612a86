"""Everything that can go wrong, as one tree; what is wrong with an input is in `problems`.

TogetherVideoError
├── TableInvalid            the prompt table has mistakes; all of them are in `problems`; nothing was sent
├── SettingsInvalid         a setting of the run is wrong; nothing was sent
├── NotConfigured           no API key, no credentials block: nothing was sent
├── SubmissionRefused       the service answered that it did not take the job
│   ├── BadParameter        400, 404, 413, 422: this request never
│   ├── WrongAddress        404, 405 without a word of the request: no such service at the base URL
│   ├── AccountBlocked      401, 402, 403: no request until the account is fixed
│   └── RateLimited         429, 503 with a JSON error body: later
├── NeverSent               the request did not leave this machine: may be sent again
│   ├── ImageChanged        a local image is gone or no longer what the table was checked with
│   └── StoppedBeforeSending  the run was stopped before it sent anything
├── SubmissionInDoubt       no usable answer: a job may exist and be billed
├── RetryRefused            a retry of a flow without a ledger: what its first try paid for is not known
├── ServiceUnreachable      no connection for any of the first rows: no more are sent in this run
├── ServiceStuck            too many jobs in a row were not done in time: no more are sent in this run
├── UnforeseenErrors        too many paid rows in a row broke off: no more are sent in this run
├── NotApproved             a person was asked before money is spent, and did not say yes; nothing was sent
├── CanaryFailed            the row of its model that went first was not downloaded; it was not sent
├── SourceMissing           the clip that it continues is not there: it was not sent
├── BudgetReached           sending it could pass the spending cap; it was not sent
├── JobFailed               the service gave the job up, with its code, message and failure class
├── JobTimedOut             the deadline passed; the job continues and a later run can collect it
├── JobNotFound             the service no longer knows the job
├── NoFrame                 no picture can be had of a clip, which may play anyway
└── DownloadFailed          the clip is not on disk; the job is paid and can be collected again
    ├── LinkExpired         403, 404, 410 on the video's URL: ask the job for a fresh one
    ├── NoLink              the job is completed, and the service gives no link
    │   └── StillGone       the only link to a still is dead
    ├── ClipInvalid         what was served is not the video that was paid for
    ├── ClipTooLarge        more bytes than the limit
    └── OutputUnwritable    the output directory is full, read-only or gone

The fields of an error are its `args`, so that it can be pickled and sent to a remote worker.
"""

from __future__ import annotations

from enum import StrEnum


class FailureClass(StrEnum):
    """Why a video failed, was not sent, or is not done: the reason as a value, for whatever has to tell them apart."""

    MODERATION = "moderation"
    BAD_PARAMETER = "bad_parameter"
    UPSTREAM = "upstream"
    CANCELLED = "cancelled"
    NOT_FOUND = "not_found"
    DOWNLOAD = "download"
    NO_LINK = "no_link"
    BUDGET = "budget"
    PRICE_UNKNOWN = "price_unknown"
    CANARY = "canary"
    ACCOUNT = "account"
    STUCK = "stuck"
    UNFORESEEN = "unforeseen"
    UNREACHABLE = "unreachable"
    WRONG_ADDRESS = "wrong_address"
    RATE_LIMITED = "rate_limited"
    TIMED_OUT = "timed_out"
    DEPENDENCY = "dependency"


class TogetherVideoError(Exception):
    """Base of every error of this package. `failure_class` is why a video that ends with it has no clip."""

    failure_class: FailureClass | None = None


class WithReason(TogetherVideoError):
    """An error of which there is a reason to tell, in words."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class NotConfigured(TogetherVideoError):
    """There is no API key, or no Prefect server, to work with. Nothing was sent."""


class SubmissionRefused(TogetherVideoError):
    """The service answered the create call, and did not take the job: nothing is billed."""

    def __init__(self, http_status: int, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(http_status, code, message, param)
        self.http_status, self.code, self.message, self.param = http_status, code, message, param

    def __str__(self) -> str:
        field = f" (field {self.param})" if self.param else ""
        code = f" {self.code}" if self.code else ""
        return f"refused with HTTP {self.http_status}{code}{field}: {self.message}"


class BadParameter(SubmissionRefused):
    """400, 404, 413 or 422 on create: the same request will never be taken."""

    failure_class = FailureClass.BAD_PARAMETER


class AccountBlocked(SubmissionRefused):
    """401, 402 or 403: the key is wrong or the credits are used up. No request will be taken until that is fixed."""

    failure_class = FailureClass.ACCOUNT


class WrongAddress(SubmissionRefused):
    """404 or 405 on create, from an address that has shown no job yet and says nothing of the request: the wrong one.

    Nothing more is sent until it is fixed. `base_url` is what was configured.
    """

    failure_class = FailureClass.WRONG_ADDRESS

    def __init__(self, http_status: int, message: str, base_url: str) -> None:
        super().__init__(http_status, None, message)
        self.args = (http_status, message, base_url)
        self.base_url = base_url

    def __str__(self) -> str:
        said = f"HTTP {self.http_status}: {self.message}" if self.message else f"HTTP {self.http_status}"
        return (
            f"no video API at the base URL {self.base_url} ({said}): fix or unset TOGETHER_BASE_URL, or the base URL"
            " in the TogetherCredentials block; Together's own is https://api.together.ai"
        )


class RateLimited(SubmissionRefused):
    """429, or 503 with a JSON error body: not accepted, to be sent again after `retry_after_seconds` if known."""

    failure_class = FailureClass.RATE_LIMITED

    def __init__(
        self, http_status: int, code: str | None, message: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(http_status, code, message)
        self.args = (http_status, code, message, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class NeverSent(WithReason):
    """The request provably did not reach the service (no connection was made): it may be sent again."""

    failure_class = FailureClass.UNREACHABLE

    def __str__(self) -> str:
        return f"not sent: {self.reason}"


class ImageChanged(NeverSent):
    """A local image is gone or has changed since the table was read. Reading the table again makes it new work."""

    failure_class = FailureClass.BAD_PARAMETER


class StoppedBeforeSending(NeverSent):
    """The run was stopped after it had written the intent to send and before it sent anything."""

    failure_class = None

    def __init__(self) -> None:
        super().__init__("the run was stopped before it was sent")
        self.args = ()


class ServiceUnreachable(WithReason):
    """No connection could be made for the first rows, each tried several times, and none for anything else."""

    failure_class = FailureClass.UNREACHABLE

    def __str__(self) -> str:
        return (
            f"the service cannot be reached ({self.reason}): is the network there, and TOGETHER_BASE_URL or the base"
            " URL in the TogetherCredentials block right? Put that right and run again: every row is as it was"
        )


class SubmissionInDoubt(TogetherVideoError):
    """No usable answer to a create call: a job may exist and be billed, and cannot be found. Never resent unasked."""

    def __init__(self, reason: str, estimate_usd: float | None = None) -> None:
        super().__init__(reason, estimate_usd)
        self.reason, self.estimate_usd = reason, estimate_usd

    def __str__(self) -> str:
        dollars = "an unknown price" if self.estimate_usd is None else f"${self.estimate_usd:.2f}"
        return f"in doubt ({self.reason}): possibly billed, {dollars}"


class RetryRefused(TogetherVideoError):
    """A create call without a ledger in a retry of a flow or task run. Nothing was sent."""

    def __str__(self) -> str:
        return (
            "not sent: this run is a retry, and without a ledger nobody knows what its earlier try has paid for."
            " Start a new flow run, or take generate_videos, which has a ledger, in place of create_video"
        )


class ServiceStuck(TogetherVideoError):
    """As many jobs in a row as may be in flight, at least three, were not done by their deadline: no more are sent."""

    failure_class = FailureClass.STUCK

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self.jobs = jobs

    def __str__(self) -> str:
        return f"not sent: {self.jobs} jobs in a row were not done in time; run again later"


class UnforeseenErrors(TogetherVideoError):
    """Paid rows in a row ended by errors that nobody foresaw, none downloaded between: nothing more is sent."""

    failure_class = FailureClass.UNFORESEEN

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows

    def __str__(self) -> str:
        return f"not sent: {self.rows} paid rows in a row ended by an error that was not foreseen"


class NotApproved(WithReason):
    """A person was asked whether the plan may be paid for, and said no, or nothing in time. Nothing was sent."""

    def __str__(self) -> str:
        return f"not approved: {self.reason}" if self.reason else "not approved"


class CanaryFailed(TogetherVideoError):
    """The row that was sent first of its model did not end downloaded: no more of the model is sent in this run."""

    failure_class = FailureClass.CANARY

    def __init__(self, model: str, row_id: str, reason: str) -> None:
        super().__init__(model, row_id, reason)
        self.model, self.row_id, self.reason = model, row_id, reason

    def __str__(self) -> str:
        return f"not sent: canary row {self.row_id} of {self.model}: {self.reason}"


class SourceMissing(TogetherVideoError):
    """The clip or still that a video begins with is not there: the video was not sent, and stays planned.

    `source` is the row's id, None for the row's own still.
    """

    failure_class = FailureClass.DEPENDENCY

    def __init__(self, source: str | None, reason: str) -> None:
        super().__init__(source, reason)
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        what = "its still" if self.source is None else f"the clip of {self.source}"
        return f"not sent: waits for {what} ({self.reason})"


class BudgetReached(TogetherVideoError):
    """Sending the row could pass the spending cap, or its price is unknown while there is a cap. It was not sent."""

    failure_class = FailureClass.BUDGET

    def __init__(self, budget_usd: float, committed_usd: float, estimate_usd: float | None) -> None:
        super().__init__(budget_usd, committed_usd, estimate_usd)
        self.budget_usd, self.committed_usd, self.estimate_usd = budget_usd, committed_usd, estimate_usd
        if estimate_usd is None:
            self.failure_class = FailureClass.PRICE_UNKNOWN

    def __str__(self) -> str:
        if self.estimate_usd is None:
            return f"budget ${self.budget_usd:.2f}: the price of this row is unknown, give it as price_usd"
        return (
            f"budget ${self.budget_usd:.2f}: ${self.committed_usd:.2f} is spent or reserved,"
            f" this row needs ${self.estimate_usd:.2f}"
        )


class ChainPastBudget(BudgetReached):
    """What remains to be sent of a chain could pass the spending cap: nothing more of the chain was sent.

    `estimate_usd` is for all that remains of it, None if a price is unknown; `contents` is that in words, like
    `2 videos and 1 still`. `remaining_usd` is neither spent nor reserved, nor promised to another chain.
    """

    def __init__(
        self, budget_usd: float, remaining_usd: float, estimate_usd: float | None, chain: str, contents: str
    ) -> None:
        super().__init__(budget_usd, budget_usd - remaining_usd, estimate_usd)
        self.args = (budget_usd, remaining_usd, estimate_usd, chain, contents)
        self.remaining_usd, self.chain, self.contents = max(remaining_usd, 0.0), chain, contents

    def __str__(self) -> str:
        if self.estimate_usd is None:
            return (
                f"budget ${self.budget_usd:.2f}: a price in the chain {self.chain} ({self.contents}) is unknown,"
                " give it as price_usd"
            )
        return (
            f"the chain {self.chain} ({self.contents}, ${self.estimate_usd:.2f}) does not fit the"
            f" ${self.remaining_usd:.2f} that remain of the budget of ${self.budget_usd:.2f}"
        )


class JobFailed(TogetherVideoError):
    """The job ended `failed` or `cancelled`. `cost_usd` is what was charged anyway, if the service says so."""

    def __init__(
        self,
        job_id: str,
        code: str | None,
        message: str,
        failure_class: FailureClass | None,
        cost_usd: float | None = None,
    ) -> None:
        super().__init__(job_id, code, message, failure_class, cost_usd)
        self.failure_class = failure_class
        self.job_id, self.code, self.message, self.cost_usd = job_id, code, message, cost_usd

    def __str__(self) -> str:
        code = f"{self.code}: " if self.code else ""
        job = "" if self.job_id in self.message else f", job {self.job_id}"
        kind = (self.failure_class or "unknown").replace("_", " ")
        return f"{code}{self.message} ({kind}{job})"


class JobTimedOut(TogetherVideoError):
    """The deadline passed; a later run collects the job. `last_problem`: why the last poll was missed, if it was."""

    failure_class = FailureClass.TIMED_OUT

    def __init__(
        self, job_id: str, last_status: str | None, waited_seconds: float, last_problem: str | None = None
    ) -> None:
        super().__init__(job_id, last_status, waited_seconds, last_problem)
        self.job_id, self.last_status, self.waited_seconds = job_id, last_status, waited_seconds
        self.last_problem = last_problem

    def __str__(self) -> str:
        problem = f" ({self.last_problem})" if self.last_problem else ""
        return (
            f"still {self.last_status or 'without a status'} after {self.waited_seconds:.0f} s{problem};"
            f" a later run can collect it (job {self.job_id})"
        )


class JobNotFound(TogetherVideoError):
    """The service answers 404 for a job it once accepted, for longer than a fresh job may take to be visible."""

    failure_class = FailureClass.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"the service does not know the job (HTTP 404, job {self.job_id}): is it the right key and address?"


class NoFrame(WithReason):
    """No picture could be made of a clip. Nothing is said about the clip: it was checked when it came."""

    def __str__(self) -> str:
        return f"no picture of the clip: {self.reason}"


class DownloadFailed(WithReason):
    """The clip is not on disk. The job stays paid and can be downloaded again."""

    failure_class = FailureClass.DOWNLOAD

    def __str__(self) -> str:
        return self.reason


class LinkExpired(DownloadFailed):
    """403, 404 or 410 on the video's URL."""


class NoLink(DownloadFailed):
    """The job is completed, and the service gives no link to its clip. `cost_usd` is what it charged, if reported."""

    failure_class = FailureClass.NO_LINK

    def __init__(self, job_id: str, cost_usd: float | None) -> None:
        super().__init__(job_id)
        self.args = (job_id, cost_usd)
        self.job_id, self.cost_usd = job_id, cost_usd

    def __str__(self) -> str:
        paid = "completed, cost not reported" if self.cost_usd is None else f"paid ${self.cost_usd:.2f}"
        return f"{paid}, no link: ask Together with job id {self.job_id}; later runs check again"


class StillGone(NoLink):
    """The link to a still that is paid for is dead, and the service has no other."""

    def __str__(self) -> str:
        paid = "cost not reported" if self.cost_usd is None else f"paid ${self.cost_usd:.3g}"
        return f"{paid}, and the only link to the still is dead ({self.job_id}): make it again"


class ClipInvalid(DownloadFailed):
    """The bytes are not a whole video: wrong length, not a container, nothing to decode, or an HTML page."""


class ClipTooLarge(DownloadFailed):
    """The clip is larger than the limit."""


class OutputUnwritable(DownloadFailed):
    """The output directory cannot be written: full, read-only or gone."""
