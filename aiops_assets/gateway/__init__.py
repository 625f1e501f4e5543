"""The ASGI app in front of the landing zone: webhooks, incident pages, health and metrics.

What belongs here: who may send or see what, limits, and the durable acceptance of request bodies as they came. What
does not: parsing of bodies (``formats``), what incidents are (``incidents``), how segments are written (``landing``).
"""
