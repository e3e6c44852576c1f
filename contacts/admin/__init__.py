"""The admin of people: contacts with what they said, their topics, and who asks to be erased."""

from contacts.admin import erasures, people

__all__ = ["erasures", "people"]
