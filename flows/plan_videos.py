"""Checks a table of prompts and says what it would make, cost and take. Sends nothing.

    python flows/plan_videos.py PROMPTS [--model M] [--output-dir DIR] ...

Schedule: none. Secrets: none. In a shell `prefect-together plan` says the same without Prefect.
"""

if __name__ == "__main__":
    from prefect_together.cli.run_flow import flow_script

    flow_script("plan_videos")  # ends the process; Prefect is imported once the command line is found right
else:
    from prefect_together.flows import plan_videos as plan_videos
