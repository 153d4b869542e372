"""The published indexes: immutable generations under an index root, and the tables in them.

`generations` needs no LanceDB until a table is opened; `tables` is the door to it.
"""
