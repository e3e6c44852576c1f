"""The admin of delivery: messages and dead letters, the sandbox inbox, ways out and switches."""

from delivery.admin import inbox, messages, providers, switches, warmups

__all__ = ["inbox", "messages", "providers", "switches", "warmups"]
