"""The admin of campaigns: their drafts and publications, and the people inside."""

from campaigns.admin import campaigns, enrollments

__all__ = ["campaigns", "enrollments"]
