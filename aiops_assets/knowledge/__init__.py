"""Knowledge: documents, articles and runbooks.

What belongs here: what is made of documents. What does not: reading bytes (``formats``) and storing rows (``live``).
"""
