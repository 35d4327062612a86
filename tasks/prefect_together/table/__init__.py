"""Any prompt table, as it is found, turned into checked rows and these into a plan: identities, file names, prices.

Uses `request`. No Prefect; nothing is sent.
"""
