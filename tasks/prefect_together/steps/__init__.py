"""One video in any flow: the Prefect tasks (three for a video, two for a still), a job block, events and assets.

Uses everything below but knows of no batch.
"""
