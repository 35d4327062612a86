"""One run over a plan: one video's way through the tasks, and the batch of all.

Uses everything below; knows of shards only its own `Partition`.
"""
