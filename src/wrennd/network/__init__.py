"""A network namespace with its links, addresses and rules for each sandbox."""
