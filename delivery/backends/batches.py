"""Which provider takes many mails in one call, and how."""

from collections.abc import Mapping

from delivery.backends.batching import Batching
from delivery.backends.listed import Brevo, Mailjet, Postmark, Resend
from delivery.backends.merged import SES, Mailgun, SendGrid

BATCHINGS: Mapping[str, Batching] = {
    "delivery.backends.keyed.BrevoBackend": Brevo(),
    "delivery.backends.keyed.ResendBackend": Resend(),
    "delivery.backends.ses.SESBackend": SES(),
    "anymail.backends.mailgun.EmailBackend": Mailgun(),
    "anymail.backends.mailjet.EmailBackend": Mailjet(),
    "anymail.backends.postmark.EmailBackend": Postmark(),
    "anymail.backends.sendgrid.EmailBackend": SendGrid(),
}
"""By the backend of those that have a `Traits.batch`."""
