"""Kills runs of the real flow at random moments, over and over, and proves from outside that nothing was paid twice.

    python tests/support/kill_harness.py --rows 100 --kills 200

One sandbox, hostile, stays up and counts what it accepted; one Prefect server stays up. A table is run, killed with
SIGKILL, run again ... until all its rows are through, then the next table. After each kill and at the end of each table
the ledger is held against the sandbox. Prints the figures; exit code 1 if anything is not as it must be.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_run import Run, WarmRuns, continued, wait_until, write_table
from prefect_together.clips.inspection import inspect_clip
from prefect_together.errors import ClipInvalid
from prefect_together.sandbox import SandboxProcess
from prefect_together.stills.picture import inspect_picture

HOSTILE = (
    *("create:429=0.03", "create:503=0.03", "create:drop=0.01"),
    *("create:drop-after=0.015", "create:500-after=0.015", "create:reset-after=0.01"),
    *("images:429=0.03", "images:503=0.03", "images:drop=0.01"),
    *("images:drop-after=0.03", "images:500-after=0.03", "images:reset-after=0.02"),
    *("retrieve:503=0.03", "retrieve:drop=0.03", "retrieve:no-url=0.05"),
    *("download:cut=0.15", "download:503=0.05", "download:410=0.05", "download:no-range=0.1"),
)
PRICE_USD = 0.28
BUDGET_SHARE = 0.95
"""Of what all rows cost: the cap must be felt."""
PHASES = (
    "starting",
    "first submits",
    "an intent is open",
    "submits",
    "stills",
    "polls",
    "downloads",
    "any moment",
    "any moment",
)
PHASE_SECONDS = 8.0
"""How long a phase is waited for; then the run is killed where it is."""
IN_FLIGHT = 5
LAST_RUN_SECONDS = 180.0

Accepted = dict[str, list[dict[str, Any]]]
FIRST_INTENTS = "SELECT video_key, min(intent_at) AS first FROM attempts GROUP BY video_key"


def is_lost(entry: sqlite3.Row) -> bool:
    """Whether it is a still that was made and whose only link was dead before it was downloaded."""
    return entry["kind"] == "still" and entry["state"] == "failed" and entry["failure_class"] == "no_link"


@dataclass
class Figures:
    """What the harness has seen, over all tables."""

    kills: Counter[str] = field(default_factory=Counter[str])
    """By what was under way at the moment of the kill; several things can be."""
    killed: int = 0
    ended_before: int = 0
    tables: int = 0
    rows: int = 0
    accepted: int = 0
    downloaded: int = 0
    in_doubt: int = 0
    in_doubt_accepted: int = 0
    refused: int = 0
    waiting: int = 0
    doubles: int = 0
    clips_checked: int = 0
    pictures: int = 0
    stills: int = 0
    stills_downloaded: int = 0
    stills_in_doubt: int = 0
    stills_in_doubt_made: int = 0
    stills_lost: int = 0
    billed_usd: float = 0.0
    committed_usd: float = 0.0
    budget_usd: float = 0.0
    wrong: list[str] = field(default_factory=list[str])

    def lines(self) -> list[str]:
        return [
            f"kills                      {self.killed} (and {self.ended_before} runs that were quicker)",
            *(f"  {what:24} {count}" for what, count in self.kills.most_common()),
            f"tables, rows               {self.tables}, {self.rows}",
            f"accepted by the service    {self.accepted}",
            f"downloaded                 {self.downloaded}, of them checked (SHA-256, PyAV) {self.clips_checked}",
            f"in doubt                   {self.in_doubt}, of them accepted {self.in_doubt_accepted}",
            f"refused by the budget      {self.refused}",
            f"wait for a clip or still   {self.waiting}",
            f"pictures made              {self.pictures}",
            f"stills                     {self.stills}, downloaded {self.stills_downloaded}, their link dead "
            f"{self.stills_lost}, in doubt {self.stills_in_doubt}, of them made {self.stills_in_doubt_made}",
            f"accepted more than once    {self.doubles}",
            f"billed <= committed <= cap ${self.billed_usd:.2f} <= ${self.committed_usd:.2f} <= ${self.budget_usd:.2f}",
            f"not as it must be          {len(self.wrong)}",
            *(f"  {one}" for one in self.wrong[:40]),
        ]


@dataclass
class TableRun:
    """One table, its output directory, and what is known of it after the last kill."""

    folder: Path
    rows: int
    tag: str
    figures: Figures
    sandbox: SandboxProcess
    budget_usd: float
    chain: int = 1
    stills: bool = False
    known_jobs: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def start(self, runs: WarmRuns) -> Run:
        words = ("--output-dir", str(self.output), "--budget-usd", f"{self.budget_usd:.2f}")
        return runs.start(str(self.folder / "table.csv"), *words, "--max-in-flight", str(IN_FLIGHT))

    def ledger(self, statement: str) -> list[sqlite3.Row]:
        """Rows of the ledger, read beside the run; none while there is no ledger."""
        path = self.output / "ledger.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def states(self) -> Counter[str]:
        return Counter(
            {row["state"]: row["n"] for row in self.ledger("SELECT state, count(*) AS n FROM videos GROUP BY state")}
        )

    def runs_begun(self) -> int:
        return sum(row["n"] for row in self.ledger("SELECT count(*) AS n FROM runs"))

    def under_way(self, runs_before: int, started_at: float) -> list[str]:
        """What a killed run was doing, by what it left."""
        if self.runs_begun() == runs_before:
            return ["before the ledger"]
        states = self.states()
        parts = [path for path in (self.output / "videos").glob("*.part") if path.stat().st_mtime >= started_at]
        seen = {
            "a create call": states["submitting"] > 0,
            "jobs at the provider": states["submitted"] > 0,
            "a download": bool(parts),
            "a clip not yet fetched": states["completed"] > 0,
        }
        return [what for what, is_so in seen.items() if is_so] or ["between these"]

    def accepted(self) -> Accepted:
        """The sandbox's jobs and pictures of this table by prompt."""
        jobs: Accepted = {}
        for job in (*self.sandbox.control.jobs(), *self.sandbox.control.images()):
            if self.tag in job["prompt"]:
                jobs.setdefault(job["prompt"], []).append(job)
        return jobs

    def must(self, is_so: bool, what: str) -> None:
        if not is_so:
            self.figures.wrong.append(f"{self.tag}: {what}")

    def check_kill(self) -> Accepted:
        """What must hold at any moment. Returns the accepted jobs."""
        accepted = self.accepted()
        videos = {row["prompt"]: row for row in self.ledger("SELECT * FROM videos")}
        for prompt, jobs in accepted.items():
            video = videos.get(prompt)
            self.must(len(jobs) == 1, f"{prompt} was accepted {len(jobs)} times")
            if video is None:
                self.must(False, f"{prompt} was accepted without a trace in the ledger")
                continue
            unsent = ("planned", "refused") if is_lost(video) else ("planned", "refused", "failed")
            self.must(video["state"] not in unsent, f"{prompt}: {video['state']}, accepted")
            known = video["job_id"]
            self.must(known in (None, jobs[0]["id"]), f"{prompt} has job {known}, not {jobs[0]['id']}")
        for prompt, job_id in self.known_jobs.items():
            self.must(videos[prompt]["job_id"] == job_id, f"{prompt}: job {job_id} was forgotten")
        self.known_jobs |= {prompt: row["job_id"] for prompt, row in videos.items() if row["job_id"]}
        self.check_money(sum(job["cost_usd"] for jobs in accepted.values() for job in jobs))
        return accepted

    def check_money(self, billed_usd: float) -> float:
        money = self.ledger("SELECT committed_micro_usd AS committed FROM money")
        committed_usd = money[0]["committed"] / 1e6 if money else 0.0
        self.must(billed_usd <= committed_usd + 1e-6, f"billed ${billed_usd:.2f}, committed ${committed_usd:.2f}")
        self.must(
            committed_usd <= self.budget_usd + 1e-6, f"committed ${committed_usd:.2f}, cap ${self.budget_usd:.2f}"
        )
        attempts = self.ledger("SELECT sum(coalesce(cost_micro_usd, reserved_micro_usd)) AS sum FROM attempts")
        total_usd = (attempts[0]["sum"] or 0) / 1e6 if attempts else 0.0
        self.must(abs(total_usd - committed_usd) < 1e-6, f"attempts ${total_usd:.2f}, committed ${committed_usd:.2f}")
        return committed_usd

    def check_end(self, exit_code: int) -> None:
        """What must hold when the last run has ended by itself."""
        accepted = self.check_kill()
        entries = self.ledger("SELECT * FROM videos")
        videos = [entry for entry in entries if entry["kind"] == "video"]
        stills = [entry for entry in entries if entry["kind"] == "still"]
        states = Counter[str](video["state"] for video in videos)
        waiting = [video for video in videos if video["failure_class"] == "dependency"]
        over = {"downloaded", "in_doubt", "refused", *(["planned"] if waiting else [])}
        self.must(set(states) <= over, f"rows are left: {dict(states)}")
        self.must(states["planned"] == len(waiting), f"{states['planned']} planned, {len(waiting)} of them wait")
        self.check_chains(videos)
        self.check_stills(stills, videos)
        self.must(exit_code == (0 if set(states) == {"downloaded"} else 1), f"exit code {exit_code}, {dict(states)}")
        for entry in entries:
            if entry["job_id"] and not is_lost(entry):
                self.must(entry["state"] == "downloaded", f"{entry['prompt']}: paid, but {entry['state']}")
            if entry["state"] == "downloaded":
                self.check_file(entry)
        self.check_files(entries)
        self.check_results(videos)
        figures = self.figures
        figures.tables += 1
        figures.rows += len(videos)
        made = {still["prompt"] for still in stills} & accepted.keys()
        figures.accepted += sum(len(jobs) for prompt, jobs in accepted.items() if prompt not in made)
        figures.pictures += sum(len(accepted[prompt]) for prompt in made)
        figures.stills += len(stills)
        figures.stills_downloaded += sum(still["state"] == "downloaded" for still in stills)
        figures.stills_lost += sum(is_lost(still) for still in stills)
        in_doubt = [still["prompt"] for still in stills if still["state"] == "in_doubt"]
        figures.stills_in_doubt += len(in_doubt)
        figures.stills_in_doubt_made += len(made.intersection(in_doubt))
        figures.doubles += sum(len(jobs) > 1 for jobs in accepted.values())
        figures.downloaded += states["downloaded"]
        figures.refused += states["refused"]
        figures.waiting += len(waiting)
        figures.in_doubt += states["in_doubt"]
        figures.in_doubt_accepted += sum(
            video["state"] == "in_doubt" and video["prompt"] in accepted for video in videos
        )
        billed_usd = sum(job["cost_usd"] for jobs in accepted.values() for job in jobs)
        figures.billed_usd += billed_usd
        figures.committed_usd += self.check_money(billed_usd)
        figures.budget_usd += self.budget_usd

    def check_chains(self, videos: list[sqlite3.Row]) -> None:
        """What continues a clip was sent after it was there, and only then."""
        by_id = {video["row_id"]: video for video in videos}
        sent = {row["video_key"]: row["first"] for row in self.ledger(FIRST_INTENTS)}
        for row_id, source_id in continued(self.rows, self.chain).items():
            video, source = by_id[row_id], by_id[source_id]
            if video["video_key"] in sent:
                is_behind = (source["downloaded_at"] or float("inf")) <= sent[video["video_key"]]
                self.must(is_behind, f"{row_id} was sent before {source_id} was there")
            else:
                self.must(video["state"] in ("planned", "refused"), f"{row_id} is {video['state']} and was never sent")
            if video["failure_class"] == "dependency":
                self.must(source["state"] != "downloaded", f"{row_id} waits for {source_id}, which is there")

    def check_stills(self, stills: list[sqlite3.Row], videos: list[sqlite3.Row]) -> None:
        """Each still that was paid for is there, in doubt, or lost with its link; its video came after it."""
        wanted = {f"row-{row:03}" for row in range(self.rows)} - continued(self.rows, self.chain).keys()
        self.must({still["row_id"] for still in stills} == (wanted if self.stills else set()), "a still is missing")
        by_id = {video["row_id"]: video for video in videos}
        sent = {row["video_key"]: row["first"] for row in self.ledger(FIRST_INTENTS)}
        for still in stills:
            row_id, video = still["row_id"], by_id[still["row_id"]]
            is_over = still["state"] in ("downloaded", "in_doubt", "refused") or is_lost(still)
            self.must(is_over, f"the still of {row_id} is left {still['state']}")
            if video["video_key"] in sent:
                is_behind = (still["downloaded_at"] or float("inf")) <= sent[video["video_key"]]
                self.must(is_behind, f"{row_id} was sent before its still was there")
            if video["failure_class"] == "dependency":
                self.must(still["state"] != "downloaded", f"{row_id} waits for its still, which is there")
                self.must(bool(video["error"]), f"{row_id} waits for its still, and does not say so")

    def check_file(self, video: sqlite3.Row) -> None:
        path = self.output / video["file"]
        if not path.exists():
            self.must(False, f"{path} is missing")
            return
        self.must(hashlib.sha256(path.read_bytes()).hexdigest() == video["sha256"], f"{path}: another SHA-256")
        try:
            (inspect_clip if video["kind"] == "video" else inspect_picture)(path)
        except ClipInvalid as error:
            self.must(False, f"{path}: {error}")
        self.figures.clips_checked += video["kind"] == "video"

    def check_files(self, entries: list[sqlite3.Row]) -> None:
        """Nothing lies about but the clips, the stills and the known files."""
        wanted = {entry["file"] for entry in entries if entry["state"] == "downloaded"}
        folders = {"videos", *(["stills"] if self.stills else [])}
        found = {f"{folder}/{path.name}" for folder in folders for path in (self.output / folder).iterdir()}
        self.must(found == wanted, f"there are {sorted(found - wanted)[:5]}, not {sorted(wanted - found)[:5]}")
        top = {path.name for path in self.output.iterdir()} - {"ledger.db-wal", "ledger.db-shm"}
        self.must(
            top == folders | {"results.csv", "videos.csv", "index.html", "ledger.db"},
            f"the directory has {sorted(top)}",
        )

    def check_results(self, videos: list[sqlite3.Row]) -> None:
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            lines = {line["id"]: (line["status"], line["job_id"]) for line in csv.DictReader(file)}
        wanted = {video["row_id"]: (video["state"], video["job_id"] or "") for video in videos}
        self.must(lines == wanted, "results.csv does not say what the ledger says")
        self.must(len(lines) == self.rows, f"results.csv has {len(lines)} of {self.rows} rows")


@dataclass
class Moment:
    """Waits for the phase in which the next kill is to fall."""

    table: TableRun
    rng: random.Random

    def wait(self, run: Run, phase: str) -> None:
        """Return when it is there, or does not come."""
        control = self.table.sandbox.control
        before = control.stats()["requests"]

        def more(endpoint: str, count: int) -> bool:
            now = control.stats()["requests"]
            return sum(now.get(endpoint, {}).values()) - sum(before.get(endpoint, {}).values()) >= count

        waits = {
            "first submits": lambda: more("create", 1),
            "an intent is open": lambda: self.table.states()["submitting"] > 0,
            "submits": lambda: more("create", self.rng.randint(2, 8)),
            "stills": lambda: more("images", self.rng.randint(1, 6)),
            "polls": lambda: more("retrieve", self.rng.randint(1, 10)),
            "downloads": lambda: more("download", self.rng.randint(1, 6)),
        }
        if phase in waits:
            is_there = waits[phase]
            wait_until(lambda: run.exit_code is not None or is_there(), seconds=PHASE_SECONDS, every_seconds=0.002)
            time.sleep(self.rng.choice((0.0, 0.0, self.rng.uniform(0, 0.05))))
        elif phase == "starting":
            time.sleep(self.rng.uniform(0.0, 1.0))
        else:
            wait_until(lambda: run.exit_code is not None or more("create", 1), seconds=1.5)
            wait_until(lambda: run.exit_code is not None, seconds=self.rng.uniform(0.0, 3.0))


def kill_table(table: TableRun, runs: WarmRuns, *, kills: int, rng: random.Random) -> int:
    """Run a table with at most so many kills, then to its end. Returns how often it was killed."""
    figures, done = table.figures, 0
    moment = Moment(table, rng)
    while done < kills:
        before, started_at = table.runs_begun(), time.time()
        run = table.start(runs)
        moment.wait(run, rng.choice(PHASES))
        if run.kill() != -9:
            figures.ended_before += 1
            break
        done += 1
        figures.killed += 1
        figures.kills.update(table.under_way(before, started_at))
        table.check_kill()
    last = table.start(runs)
    table.check_end(last.wait(LAST_RUN_SECONDS))
    return done


def harass(
    *, rows: int, kills: int, most_per_table: int, folder: Path, seed: int, chain: int = 1, stills: bool = False
) -> Figures:
    """Kill so many times, over as many tables as it takes. Each row continues the one before, in chains of `chain`.

    With `stills`, each chain begins with a still.
    """
    figures, rng = Figures(), random.Random(seed)
    settings = ("--generation-seconds", "uniform:0.3:2", "--clip", "shared", "--clip-bytes", "300000")
    settings += ("--retry-after-seconds", "0.3", "--seed", str(seed), "--state-dir", str(folder / "sandbox"))
    faults = [word for fault in HOSTILE for word in ("--fault", fault)]
    with (
        SandboxProcess(arguments=[*settings, *faults]) as sandbox,
        WarmRuns(folder / "prefect", base_url=sandbox.base_url) as runs,
    ):
        while (left := kills - figures.killed) > 0:
            tag = f"table-{figures.tables}"
            place = folder / tag
            place.mkdir(parents=True)
            write_table(place / "table.csv", rows=rows, prompt=f"A cat of {tag}", chain=chain, stills=stills)
            budget_usd = round(rows * PRICE_USD * BUDGET_SHARE, 2)
            table = TableRun(place, rows, tag, figures, sandbox, budget_usd, chain, stills)
            started = time.monotonic()
            count = kill_table(table, runs, kills=min(left, most_per_table), rng=rng)
            states = ", ".join(f"{count} {state}" for state, count in table.states().items())
            took = f"{len(table.accepted())} accepted, {time.monotonic() - started:.0f} s"
            print(f"{tag}: {count} kills, {states}, {took}", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--most-per-table", type=int, default=20, help="kills of one table before it is let go to its end"
    )
    parser.add_argument("--chain", type=int, default=1, help="rows of a chain, each of which continues the one before")
    parser.add_argument("--stills", action="store_true", help="begin each chain, or each row, with a still")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work, kept afterwards; default: a temporary one")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        figures = harass(
            rows=given.rows,
            kills=given.kills,
            most_per_table=given.most_per_table,
            folder=given.folder or Path(temporary),
            seed=given.seed,
            chain=given.chain,
            stills=given.stills,
        )
    print("\n".join([*figures.lines(), f"seconds                    {time.monotonic() - started:.0f}"]))
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
