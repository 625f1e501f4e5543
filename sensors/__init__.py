"""Sensors: they look, call a room's judgement, and request runs.

What belongs here: reading the instance and the home folder within a tick's time, and typed cursors. What does not: the
judgement itself (``aiops_assets.live.demand``).
"""
