"""A clip on disk or in a bucket: downloaded with resume, checked by its container, renamed to its final name.

Uses `errors`, `problems` and `clock`. No Prefect; what a request or a job is, it does not know.
"""
