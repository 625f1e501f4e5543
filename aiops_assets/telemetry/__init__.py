"""Series and points: what is measured, and the tables that hold it.

What belongs here: the dictionary of series and the Dagster assets and checks of the telemetry tables. What does not:
judging points (``detection``) or parsing them (``formats``).
"""
