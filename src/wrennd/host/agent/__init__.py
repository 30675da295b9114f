"""The host agent: sandboxes of this machine for a control plane, over RPC (docs/hostagent.md)."""
