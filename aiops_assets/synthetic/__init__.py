"""Made-up telemetry, marked as such, for people who have none of their own yet.

What belongs here: pure, seeded generators of signals. What does not: sending them anywhere (``cli.try_out``).
"""
