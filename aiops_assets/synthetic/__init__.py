"""Made-up data, marked as such: incidents (``golden``), and storms of telemetry with their truth (``storms``).

What belongs here: seeded generators, their configuration, and the gate of the data set (``gate``). What does not: the
mechanism of promotion (``promotion``) and what the platform makes of a storm (``evaluation``).
"""
