"""The cells of a prompt table turned into checked rows and these into a plan: identities, file names, prices.

Uses `request`, `stills` and `grid`. No Prefect; nothing is sent.
"""
