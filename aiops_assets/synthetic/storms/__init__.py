"""Golden storms: a scenario's fleet, load and faults as what real senders would send, with the truth beside it.

What belongs here: the scenario language and its scenarios, signals, faults, emitters by wire format, ground truth. What
does not: what the platform makes of it (``evaluation``) and what people watch (``cli``).
"""
