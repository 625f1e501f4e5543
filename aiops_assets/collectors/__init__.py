"""The pull side: what the platform fetches itself, from the machine it runs on and from devices.

What belongs here: one asyncio scheduler with a deadline for each device (``scheduler``), one module or package a kind
of device (``host``, ``snmp``, ``redfish``), the document they all produce (``document``), counters that become rates
(``rates``) and the buffer in front of the landing zone (``outbox``). What does not: parsing of documents (``formats``)
and any judgement of values (``detection``). A new kind of device is a class with ``poll()`` as in ``document.Poller``.
"""
