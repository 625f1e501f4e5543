"""Polling of servers' management controllers over Redfish, both generations of its schemas.

What belongs here: the connection with its sessions and certificates (``client``), tolerant reading of JSON
(``fields``), what each kind of resource means (``resources``), new entries of event logs (``logs``) and the poller of
one device (``poll``). What does not: schedules (``collectors.scheduler``) and the reading of log entries that were
fetched (``formats.redfish_log``).
"""
