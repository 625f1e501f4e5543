"""The operations database: what people did, and what the platform must not forget between processes.

What belongs here: its tables, migrations, transactions, leases and the audit trail. What does not: the rules by which
incidents come about (``incidents``) and anything that can be derived again from the lake.
"""
