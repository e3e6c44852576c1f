"""What webhooks lost: the providers' own lists, read once a day, and their logs, asked about mail
of which nobody knows whether it was taken."""
