"""One way to a language model: every question of the product goes through here.

What belongs here: providers, structured answers, retries, concurrency, the cache, the budget and the ledger of calls.
What does not: prompts and what is done with answers (the domain rooms), and what counts as personal (``privacy``).
"""
