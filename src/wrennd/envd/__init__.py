"""The guest agent: standard library only."""
