"""The calls of one process to its LLM, whoever answers them.

calls.py      the way of one question: gate, tries, what its failures mean
gate.py       who goes next, how many at once, and when nobody does
limits.py     how many at once the endpoint takes, and how that is divided over workers
outage.py     whether the endpoint is there at all
server_load.py   how many requests it says it runs and holds back
"""
