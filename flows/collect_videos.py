"""Fetches what earlier runs submitted and left: polls, downloads, writes the results anew. Buys nothing.

    python flows/collect_videos.py --output-dir DIR

Schedule: every ten minutes in deployments/prefect.yaml, inactive. Secrets: TOGETHER_API_KEY in the environment, or a
TogetherCredentials block given by its name.
"""

if __name__ == "__main__":
    from prefect_together.cli.run_flow import flow_script

    flow_script("collect_videos")  # ends the process; Prefect is imported once the command line is found right
else:
    from prefect_together.flows import collect_videos as collect_videos
