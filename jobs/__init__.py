"""Jobs and schedules: wiring only.

What belongs here: which op or assets a job runs, its tags, executor, limits and schedule. What does not: the work,
whose home is a room of ``aiops_assets``.
"""
