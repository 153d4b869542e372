"""What runs cost and how they ended, for people: a page, Markdown for the Prefect UI, and JSON.

Everything is made of the JSON lines that runs leave beside their logs (`journal`), so that the report of an old run
can be made again.
"""
