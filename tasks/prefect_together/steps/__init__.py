"""One video in any flow: the three Prefect tasks, and the events and assets that Prefect's server hears of it.

Uses everything below but knows of no batch.
"""
