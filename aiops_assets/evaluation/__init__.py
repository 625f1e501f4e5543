"""How well the platform does on storms whose truth is known: detection, delay, false alarms, noise, root cause.

What belongs here: running a storm through the live path's own code and comparing the result with its truth. What does
not: the storms (``synthetic.storms``) and the evaluation of single parts over files (``detection.evaluate``).
"""
