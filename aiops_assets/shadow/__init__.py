"""Shadowing a Prometheus: its history beside ours, and what would have paged beside what did.

What belongs here: the client of Prometheus' HTTP API, the backfill and its journal, alert rules turned into ours, and
the comparison with its report. What does not: bytes to rows (``formats``), the storing of points (the live session
does that with deliveries of any source) and any judging (``detection``; only ``judging`` here touches it).
"""
