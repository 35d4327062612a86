"""One run over a plan: the three Prefect tasks, one video's way through them, and the batch of all.

Uses everything below; knows of shards only its own `Share`.
"""
