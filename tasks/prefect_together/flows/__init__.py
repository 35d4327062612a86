"""The Prefect flows with their bodies, and what they show and ask in Prefect's UI.

Uses everything below. Flow files in the repository's flows/ only import from here.
"""
