"""(a) The loop of the source document: one job after another, a poll every five seconds, then the download."""

from __future__ import annotations

import time
import urllib.request

from stopwatch import body, output_directory, read_prompts
from together import Together

with body():
    client = Together()
    directory = output_directory()
    for row in read_prompts():
        job = client.videos.create(prompt=row["prompt"], model=row["model"], width=1366, height=768)
        while True:
            status = client.videos.retrieve(job.id)
            if status.status == "completed":
                assert status.outputs is not None
                urllib.request.urlretrieve(status.outputs.video_url, directory / f"{row['id']}.mp4")  # noqa: S310
                break
            elif status.status == "failed":
                print("Failed")
                break
            time.sleep(5)
