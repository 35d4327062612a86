"""A clip on disk or in a bucket: downloaded with resume, checked by its container, published under its final name.

Uses `errors`, `clock` and `retry_after`. No Prefect.
"""
