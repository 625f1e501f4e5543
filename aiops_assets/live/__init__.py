"""The live session: landing zone to incidents in micro-batches of about a second.

What belongs here: the loop, its order of commits, when hours close and are amended, its progress file. What does not:
parsing, judging and grouping themselves (``formats``, ``detection``, ``incidents``). dagster is imported in ``session``
alone.
"""
