"""One shard of a table, started by `generate-videos` with shards above 1, never by hand.

Schedule: none. Secrets: TOGETHER_API_KEY in the worker's environment, or a TogetherCredentials block given by its name;
the password of a shared ledger in PGPASSWORD or ~/.pgpass.
"""

from prefect_together.flows import generate_videos_shard as generate_videos_shard
