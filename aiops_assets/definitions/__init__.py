"""The code locations: assembly only.

What belongs here: putting the rooms' assets, checks, jobs and sensors together, and the instance's ``dagster.yaml``.
What does not: any of those themselves. Loading needs no network, no credentials and no home folder.
"""
