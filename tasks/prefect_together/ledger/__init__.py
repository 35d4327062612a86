"""The database that knows every video: its states and what each means, intents before create calls, money, and claims.

Uses `request`, `clips`, `stills`, `table` and `api`. No Prefect. The only source of truth about what is paid.
"""
