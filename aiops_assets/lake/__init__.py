"""Delta tables under one root: the truth of the platform.

What belongs here: opening, reading, exactly-once appends, compaction and retention of tables. What does not: what the
rows mean (``tables`` and the domain rooms). Writing is for the holder of the live lease; reading is for anyone.
"""
