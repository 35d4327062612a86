"""Together AI's video generation for Prefect: from a table of prompts to a folder of checked videos."""
