"""What is made of finished clips, free and repeatable: frames of them, and films that join them.

Uses `clips`, `table` and `ledger`. No Prefect. Clips themselves are never rewritten.
"""
