"""Personal data and secrets in text: found, measured, and replaced.

What belongs here: detectors, redaction and consistent replacement, over single texts and whole columns. What does not:
where texts come from and what happens when something is found (``llm``, ``synthetic``). Nothing here logs its finds.
"""
