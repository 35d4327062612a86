"""What is reported of a run: results.csv, the page, the outcome with its advice, a plan's report, and progress.

Uses the ledger's records and the table's plan; decides nothing about what is sent.
"""
