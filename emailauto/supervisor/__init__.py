"""`make run`: start everything, keep it running, leave nothing behind."""
