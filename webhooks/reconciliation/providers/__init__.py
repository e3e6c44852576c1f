"""The providers whose lists are read, by the name of their backend
(`delivery.models.Provider.Backend`)."""

from collections.abc import Mapping

from webhooks.reconciliation.providers import brevo, mailgun, postmark, sendgrid, ses
from webhooks.reconciliation.sources import Source

SOURCES: Mapping[str, Source] = {
    "brevo": brevo.SOURCE,
    "mailgun": mailgun.SOURCE,
    "postmark": postmark.SOURCE,
    "sendgrid": sendgrid.SOURCE,
    "ses": ses.SOURCE,
}
