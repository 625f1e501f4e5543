"""Hours derived again: to prove that the past replays, to try what it would have been, to explain, to write it anew.

What belongs here: going through closed hours outside the live stream (replays, explanations, backfills, restatements),
comparing, and the reports about it. What does not: deriving an hour (``detection``), closing it while data flows
(``live``), grouping alerts (``incidents``). Replays write below ``home.replays`` and nowhere else.
"""
