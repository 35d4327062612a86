"""A clip on disk or in a bucket: downloaded with resume, checked by its container, renamed to its final name.

Uses `errors`, `clock` and `retry_after`. No Prefect; what a request or a job is, it does not know.
"""
