"""Ways out: providers, how they have been answering, and who mail comes from."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from delivery.states import Stream


class Provider(models.Model):
    """A way out: a Django e-mail backend and the env variable that holds its secret."""

    class Backend(models.TextChoices):
        """`configured` follows EMAIL_URL and the config file; the others are what they say."""

        CONFIGURED = "configured", _("As configured (EMAIL_URL, else the config file)")
        SANDBOX = "sandbox", _("Sandbox inbox")
        SMTP = "smtp", _("SMTP server (URL in the env variable)")
        POSTMARK = "postmark", "Postmark"
        SENDGRID = "sendgrid", "SendGrid"
        MAILGUN = "mailgun", "Mailgun"
        BREVO = "brevo", "Brevo"
        RESEND = "resend", "Resend"
        MAILERSEND = "mailersend", "MailerSend"
        MAILJET = "mailjet", "Mailjet"
        SPARKPOST = "sparkpost", "SparkPost"
        POSTAL = "postal", "Postal"
        SES = "ses", "Amazon SES"

    class Carries(models.TextChoices):
        """Which mail it is for; the other values are streams."""

        EVERYTHING = "", _("Everything")
        TRANSACTIONAL = Stream.TRANSACTIONAL, _("Transactional mail only")
        MARKETING = Stream.MARKETING, _("Marketing mail only")

    key = models.SlugField(max_length=60, unique=True)
    backend = models.CharField(max_length=20, choices=Backend.choices, default=Backend.CONFIGURED)
    secret_env = models.CharField(
        max_length=200,
        blank=True,
        help_text=_(
            "Name of the environment variable with the API key or SMTP URL. Where two are"
            " needed (Mailjet, SES) both, with a comma."
        ),
    )
    api_url = models.URLField(blank=True, help_text=_("Empty: the provider's own."))
    rate_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Hand-overs per second. Empty: the config file's.")
    )
    concurrency = models.PositiveSmallIntegerField(
        default=4, help_text=_("Hand-overs at once, in each worker process.")
    )
    batch_size = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text=_(
            "Marketing mails per call, where the provider takes several. Empty or 0: as many as"
            " suit it. 1: one mail per call."
        ),
    )
    hourly_cap = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Hand-overs per hour (UTC), never exceeded.")
    )
    daily_cap = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Hand-overs per day (UTC), never exceeded.")
    )
    carries = models.CharField(max_length=20, choices=Carries.choices, blank=True)
    regions = ArrayField(
        models.CharField(max_length=40),
        default=list,
        blank=True,
        help_text=_("Whose data it may be given, e.g. eu-*; with commas. Empty: unknown."),
    )
    pool = models.SlugField(
        max_length=60,
        blank=True,
        help_text=_("Providers of one pool stand in for each other while one is down."),
    )
    priority = models.PositiveSmallIntegerField(
        default=100, help_text=_("Within the pool: the lowest stands in first.")
    )
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["key"]

    def __str__(self) -> str:
        return self.key

    @property
    def health(self) -> "Circuit":
        """Its circuit; one in good order where nothing has ever been noted."""
        try:
            return self.circuit
        except Circuit.DoesNotExist:
            return Circuit(provider=self)


class Circuit(models.Model):
    """How a provider has been answering. See `delivery.circuits`."""

    provider = models.OneToOneField(
        Provider, on_delete=models.CASCADE, primary_key=True, related_name="circuit"
    )
    failures = models.PositiveIntegerField(
        default=0, help_text=_("In a row, whosoever's mail it was.")
    )
    refusals = models.PositiveIntegerField(
        default=0, help_text=_("Mails refused for good in a row, for no fault of their addresses.")
    )
    trips = models.PositiveIntegerField(default=0, help_text=_("Since it last took a mail."))
    open_until = models.DateTimeField(
        null=True,
        blank=True,
        help_text=_("Nothing is handed over; from then on one mail at a time."),
    )
    slow_until = models.DateTimeField(
        null=True, blank=True, help_text=_("It asked for a pause until then.")
    )
    reason = models.CharField(max_length=300, blank=True)
    changed_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"circuit of {self.provider_id}"


class SenderPause(models.Model):
    """A sending domain that a provider did not accept, and until when it is not asked again. See
    `delivery.senderpauses`."""

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="sender_pauses")
    domain = models.CharField(max_length=253)
    until = models.DateTimeField()
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "domain"], name="one_pause_per_sender"),
        ]

    def __str__(self) -> str:
        return f"{self.domain} through {self.provider_id}"


class Sender(models.Model):
    """Who a mail comes from."""

    name = models.CharField(max_length=100)
    email = models.EmailField()
    reply_to = models.EmailField(blank=True)
    postal_address = models.CharField(
        max_length=300,
        blank=True,
        help_text=_("Printed below marketing mail; the law asks for it."),
    )
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="senders")
    is_default = models.BooleanField(default=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="one_default_sender"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"

    @property
    def domain(self) -> str:
        """The sending domain, on which reputation is kept."""
        return self.email.rpartition("@")[2].lower()
