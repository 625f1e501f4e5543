"""The durable inbox: what a sender was promised is on disk before the promise is given.

What belongs here: the segment format, its writer, reader and recovery, quarantine and retention. What does not: any
knowledge of what a delivery means (``formats``) or who may send one (``gateway``). See ``segment`` for the format that
outside shippers may write.
"""
