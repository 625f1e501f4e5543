"""The care of stored data in the asset graph: compaction, packing, retention, verification, clean-up.

What belongs here: Dagster assets and checks that call ``live.upkeep`` and show what was done. What does not: the work
itself, and backups, which stand outside of the installation they save (``backup``).
"""
