"""Judging points: absolute rules, statistics against a series' own past, and the book of alerts that follows.

What belongs here: everything between a stored point and an alert. What does not: what people do with alerts
(``incidents``) and how rows are stored (``lake``). All of it is causal and works on dense integer series numbers.
"""
