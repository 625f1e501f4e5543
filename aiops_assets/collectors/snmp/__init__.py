"""Polling of SNMP agents, v1, v2c and v3.

What belongs here: the small engine interface (``engine``) and its pysnmp implementation (``pysnmp_engine``), walks that
never end short in silence (``walk``), profiles that say which objects mean which metric (``profile``,
``profiles/*.yaml``) and the poller of one device (``poll``). What does not: schedules (``collectors.scheduler``). Only
``pysnmp_engine`` imports pysnmp.
"""
