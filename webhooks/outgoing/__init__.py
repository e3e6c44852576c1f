"""Outgoing webhooks: news about mail, told to other services by the rules of Standard Webhooks
(https://www.standardwebhooks.com)."""
