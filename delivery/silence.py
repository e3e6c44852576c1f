"""Mail that a provider took and nobody has heard of since.

A provider that accepts and drops tells nobody. Only those that do tell about other mail are asked
about, so that silence means something.
"""

from datetime import timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from delivery.models import Message, Provider
from delivery.states import MessageState

AFTER = timedelta(hours=24)
"""What has not been heard of by then is looked for; it is never sent again."""
_UNTIL = timedelta(hours=72)

_QUIET = Q(delivered_at=None, opened_at=None, clicked_at=None, bounced_at=None)


def silent() -> QuerySet[Message]:
    """The messages sent between 24 and 72 hours ago of which nothing has come back, of providers
    that have told about others in that time. One query."""
    lately = Message.objects.filter(
        state=MessageState.SENT, sent_at__lt=Now() - AFTER, sent_at__gt=Now() - _UNTIL
    )
    # One mail is proof enough, and EXISTS stops at it.
    of_provider = lately.filter(provider=OuterRef("pk"))
    telling = Provider.objects.filter(Exists(of_provider.exclude(_QUIET)))
    unheard = Q(complained_at=None, unsubscribed_at=None, bounces=None)
    return lately.filter(_QUIET & unheard, provider__in=telling)
