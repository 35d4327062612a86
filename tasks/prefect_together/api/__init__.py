"""Together's video API over its own SDK: the client, create calls, polls, and one session.

Uses `request`, `clips` and `stills`. No Prefect, no ledger: a create call reports to a `Journal` that it is given.
"""
