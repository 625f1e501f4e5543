"""The gate of synthetic data sets: what a version must show before it may be used.

What belongs here: measures over frames (rules, distances, diversity, privacy, utility, discrimination) and the
certificate. What does not: generating (``synthetic.golden``) and moving pointers (``promotion``).
"""
