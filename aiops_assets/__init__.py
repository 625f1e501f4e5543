"""The AIOps data platform.

One room a domain; each package's docstring says what belongs there and what does not. Importing this package costs
nothing: rooms import only what they need.
"""
