"""What can be asked of the images API for a video's first frame: a checked request, models and prices, the picture.

Uses `request`, `clips` and `errors`. No Prefect, no network.
"""
