"""The command line: `prefect-together`, flow scripts in a shell, the live display, and a Prefect server of their own.

Uses everything below. The top of the package, and the only part that changes settings of its whole process.
"""
