"""Whole-system backup and restore: one command saves an installation while it runs, one makes a home of it again.

What belongs here: the backup folder (``store``), what is taken in which order (``capture``), how a home comes back
(``restore``), the operations database in transit (``operations``). What does not: the parts themselves. A backup is a
consistent cut: what is committed later in a batch is read earlier, so what a backup holds is a state in which the live
session could have been killed, and it goes on from there exactly once.
"""
