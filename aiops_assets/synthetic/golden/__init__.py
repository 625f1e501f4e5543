"""Golden incidents: the life of ITSM tickets simulated from a configuration, told in words, written as files.

What belongs here: the configuration, what is drawn from it or from a fitted reference, the simulated life, the wording,
the language-model path, exports. What does not: judging the result (``synthetic.gate``).
"""
