"""Sources of deliveries: one entry a source gives its asset, its freshness policy, its check and its documentation.

What belongs here: the catalogue and the factory that turns an entry into Dagster definitions. What does not: reading
bytes (``formats``), fetching them (``collectors``) or receiving them (``gateway``).
"""
