"""Candidate → gates → champion: how models, forecasters and data sets come into use, and how they go.

What belongs here: versions and their files, gate results, pointers and their history, archives, and the factory that
makes assets and checks of them. What does not: what is promoted, and what its gates measure (the domain rooms).
"""
