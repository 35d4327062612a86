"""A clip on disk or in a bucket: downloaded with resume, checked by its container, renamed to its final name."""
