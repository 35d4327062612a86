"""What can be asked of the video API: a validated request, its media, and what is known of each model (limits, prices).

Uses nothing else of the package but `errors`. No Prefect, no network.
"""
