"""One table over many workers: the plan shared through the ledger, the runs that work on it, their common limits.

Uses `execution`; a run without shards never imports it.
"""
