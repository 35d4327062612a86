"""What is reported of a run: results.csv, the page, the outcome with its advice, a plan's report, and progress; and
before it, what would be paid for again.

Uses everything below. Sends nothing.
"""
