"""Makes one video from a prompt, with the same ledger and the same care as a table.

    python flows/generate_video.py "a cat on a drum" --model minimax/video-01-director [--sandbox] ...

Schedule: none. Secrets: TOGETHER_API_KEY in the environment, or a TogetherCredentials block given by its name.
"""

if __name__ == "__main__":
    from prefect_together.cli.run_flow import flow_script

    flow_script("generate_video")  # ends the process; Prefect is imported once the command line is found right
else:
    from prefect_together.flows import generate_video as generate_video
