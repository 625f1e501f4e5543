"""How the platform is watched: logs, metrics and health.

What belongs here: the format of logs, the one catalogue of metric names, readings of what other processes say about
themselves, and checks of dependencies. What does not: any judgement of the telemetry of others (``detection``).
"""
