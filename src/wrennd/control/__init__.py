"""The server's control plane: REST API, keys, the database, and what the hosts should have.

It runs without privileges and reaches sandboxes through the host agent (`agent_client.py`), and
their ports by the address that the agent names. docs/api.md says what it answers.
"""
