"""Makes real H.264 clips of 25 MB: one group of noisy pictures, encoded once and repeated. DIRECTORY and how many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

CLIP_BYTES = 25_000_000
FPS, GROUP = 24, 24
WIDTH, HEIGHT = 1280, 720
CODING = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    # A key frame of some 300 KB and others of 100 KB, as in a clip of 20 Mbit/s.
    "x264-params": "scenecut=0:vbv-maxrate=20000:vbv-bufsize=2500",
}


def write_clip(path: Path, *, seed: int) -> None:
    """A playable clip of CLIP_BYTES, some ten seconds long."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    light = np.linspace(0, 170, WIDTH).astype(np.uint8)[None, :, None]
    # PyAV's types leave most of what is muxed and encoded unknown.
    with cast(Any, av.open(path, "w", format="mp4", options={"movflags": "faststart"})) as opened:
        video = opened.add_stream("libx264", rate=FPS, options=CODING)
        video.width, video.height, video.pix_fmt, video.gop_size = WIDTH, HEIGHT, "yuv420p", GROUP
        video.bit_rate = 20_000_000
        packets: list[Any] = []
        for number in range(GROUP):
            picture = av.VideoFrame.from_ndarray(np.roll(noise, number * 7, axis=1) + light, "rgb24")
            packets += video.encode(picture)
        packets += video.encode(None)
        size_bytes = number = 0
        while size_bytes < CLIP_BYTES:
            first = packets[number % GROUP]
            packet = av.Packet(bytes(first))
            packet.stream, packet.time_base, packet.is_keyframe = video, first.time_base, first.is_keyframe
            packet.pts = packet.dts = number
            size_bytes, number = size_bytes + packet.size, number + 1
            opened.mux(packet)


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        write_clip(Path(sys.argv[1]) / f"{number}.mp4", seed=number)
