"""Cloud APIs on loopback: what they enforce and how they fail, built from their published schemas.

What belongs here: one small ASGI application an API, with authentication, pages, limits and errors. What does not:
tests.
"""
