"""Errors: exceptions and messages of applications.

What belongs here: what is made of error events. What does not: reading bytes (``formats``) and storing rows (``live``).
"""
