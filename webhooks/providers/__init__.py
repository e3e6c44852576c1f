"""The providers whose webhooks are taken, by the name in the URL.

The name is also that of the provider's backend (`delivery.models.Provider.Backend`), by which
its messages are found again.
"""

from collections.abc import Mapping

from webhooks.adapters import Adapter
from webhooks.providers import (
    brevo,
    mailersend,
    mailgun,
    mailjet,
    postal,
    postmark,
    resend,
    sendgrid,
    ses,
    sparkpost,
)

ADAPTERS: Mapping[str, Adapter] = {
    brevo.NAME: brevo.ADAPTER,
    mailersend.NAME: mailersend.ADAPTER,
    mailgun.NAME: mailgun.ADAPTER,
    mailjet.NAME: mailjet.ADAPTER,
    postal.NAME: postal.ADAPTER,
    postmark.NAME: postmark.ADAPTER,
    resend.NAME: resend.ADAPTER,
    sendgrid.NAME: sendgrid.ADAPTER,
    ses.NAME: ses.ADAPTER,
    sparkpost.NAME: sparkpost.ADAPTER,
}
