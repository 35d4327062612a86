"""Turns a table of prompts into a folder of videos.

    python flows/generate_videos.py PROMPTS --output-dir DIR [--model M] [--sandbox] ...

Schedule: none of its own; deployments/prefect.yaml has one. Secrets: TOGETHER_API_KEY in the environment, or a
TogetherCredentials block given by its name.
"""

if __name__ == "__main__":
    from prefect_together.cli.run_flow import flow_script

    flow_script("generate_videos")  # ends the process; Prefect is imported once the command line is found right
else:
    from prefect_together.flows import generate_videos as generate_videos
