"""Logs: what programs and devices write.

What belongs here: what is made of log events. What does not: reading bytes (``formats``) and storing rows (``live``).
"""
