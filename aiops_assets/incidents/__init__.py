"""Incidents: alerts that belong together, what may have caused them, and what people do about them.

What belongs here: grouping and assessment (pure), the lifecycle in the operations database, and the pages. What does
not: how alerts come about (``detection``) and who may see the pages (``gateway``).
"""
