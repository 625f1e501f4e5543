"""Bytes to rows: one module a wire format, pure and vectorised.

What belongs here: parsers that take deliveries and return a ``Parsed`` batch, and the mapping of senders' names to
canonical metric names. What does not: where bytes come from (``gateway``, ``collectors``) and where rows go (``live``).
"""
