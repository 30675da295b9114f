"""Wrenn: untrusted code in microVMs on one's own machine."""

__version__ = "0.1.0"
