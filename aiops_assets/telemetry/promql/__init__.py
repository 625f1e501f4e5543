"""PromQL over the lake: parse, plan, evaluate.

What belongs here: the supported subset of the Prometheus query language and its evaluation over ``metric_points``,
``series`` and ``alerts``. What does not: HTTP (``gateway.prometheus``). Whatever is not supported is refused by name;
nothing is approximated. Semantics are those of Prometheus 2.x; ``Boundaries.OPEN`` gives those of 3.x.
"""
