"""The package's deployments on a Prefect server: for the workers of a work pool, or served by one process.

`prefect.yaml` beside this is the one source of what they are; `deployments/prefect.yaml` of a checkout is a link to it.
Uses `flows`.
"""
