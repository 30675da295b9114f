"""The server's database: its tables, and plain functions that read and change them.

`database.py` runs such a function in a thread, in one transaction, and turns what the database
reports into our errors. Everything else here takes a connection and knows no HTTP and no agent.
"""
