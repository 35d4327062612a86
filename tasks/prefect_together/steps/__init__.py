"""One video in any flow: the three Prefect tasks, a job block over them, and its events and assets on Prefect's server.

Uses everything below but knows of no batch.
"""
