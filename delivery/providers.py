"""What is known of each provider: how it is reached, and what its answers mean. Data only.

Sources: the providers' public API references, read as documentation is: what they do not promise
is not relied on. Only an answer that *proves* the provider did not take the mail is listed as
anything but a doubt; see `verdicts` for what happens to the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

_HOUR = 3_600.0


class Meaning(Enum):
    """What an answer says about the mail, and whose fault it is."""

    REFUSED = "refused"
    """Not taken, and never will be: this mail, for whatever reason."""
    RECIPIENT = "recipient"
    """Not taken, and never will be: this recipient."""
    LATER = "later"
    """Not taken now; the mail may be offered again."""
    SLOWER = "slower"
    """Not taken: too many at once. Nothing more for a moment."""
    CLOSED = "closed"
    """Not taken: the account, its key or its quota. Nothing more until that is put right."""
    SENDER = "sender"
    """Not taken: it does not know, or not accept, the sending domain. Nothing more from that one
    for a moment."""
    DOUBT = "doubt"
    """It may have been taken."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The meaning of one error code; `wait` in seconds where the provider tells no time itself."""

    meaning: Meaning
    wait: float | None = None


_REFUSED, _LATER = Answer(Meaning.REFUSED), Answer(Meaning.LATER)
_SLOWER, _CLOSED, _DOUBT = (Answer(m) for m in (Meaning.SLOWER, Meaning.CLOSED, Meaning.DOUBT))
_QUOTA = Answer(Meaning.CLOSED, wait=_HOUR)
_SENDER = Answer(Meaning.SENDER)
_RECIPIENT = Answer(Meaning.RECIPIENT)


@dataclass(frozen=True, slots=True)
class Batch:
    """How many mails a provider takes in one call, each with a body, headers and metadata of its
    own. See `delivery.backends.batches` for how such a call is made."""

    messages: int
    size: int
    """In bytes, of the whole call."""
    in_doubt: int
    """So many are put into a call unless a provider's row says otherwise: of a call without an
    answer all its mails are in doubt together. Where nothing can clear up such a doubt, few."""
    one_sender: bool = False
    """Its mails share sender and campaign, which the provider takes once per call."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One provider. `codes` are looked up before the HTTP status; they are what `code_at` leads
    to in the JSON body of an error: keys from the outside in, `0` for the first of a list."""

    backend: str
    secrets: tuple[str, ...] = ("api_key",)
    """The backend's options that the environment variables of a provider row fill, in order."""
    needs_api_url: bool = False
    code_at: tuple[str | int, ...] = ()
    codes: Mapping[str, Answer] = field(default_factory=dict)
    statuses: Mapping[int, Answer] = field(default_factory=dict)
    """Where its HTTP statuses mean something else than everybody's."""
    has_metadata: bool = True
    """Takes our message's id along and brings it back in its webhooks; else the Message-ID does."""
    idempotent_seconds: float = 0.0
    """How long a repeated call with the same key is answered with the first result."""
    batch: Batch | None = None
    no_batch: str = ""
    """Without `batch`: why its calls carry one mail each."""
    counts_calls: bool = False
    """What its rate limit counts: calls, however many mails they carry, or mails."""


TRAITS: Mapping[str, Traits] = {
    "ses": Traits(
        "delivery.backends.ses.SESBackend",
        secrets=("aws_access_key_id", "aws_secret_access_key"),
        codes={
            "TooManyRequestsException": _SLOWER,
            "Throttling": _SLOWER,
            "ThrottlingException": _SLOWER,
            "LimitExceededException": _QUOTA,
            "AccountSuspendedException": _CLOSED,
            "SendingPausedException": _CLOSED,
            "MailFromDomainNotVerifiedException": _SENDER,
            "NotFoundException": _SENDER,
            "AccessDeniedException": _CLOSED,
            "AccessDenied": _CLOSED,
            "ExpiredTokenException": _CLOSED,
            "InvalidClientTokenId": _CLOSED,
            "InvalidSignatureException": _CLOSED,
            "MissingAuthenticationTokenException": _CLOSED,
            "SignatureDoesNotMatch": _CLOSED,
            "UnrecognizedClientException": _CLOSED,
            "OptInRequired": _CLOSED,
            "BadRequestException": _REFUSED,
            "MessageRejected": _REFUSED,
            "MessageRejected.NotVerified": _SENDER,  # so its text says
            "InvalidParameterValue": _REFUSED,
            "ValidationException": _REFUSED,
        },
        # https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendBulkEmail.html
        no_batch="SendBulkEmail takes a template and values, not made mails",
    ),
    "postmark": Traits(
        "anymail.backends.postmark.EmailBackend",
        secrets=("server_token",),
        code_at=("ErrorCode",),
        codes={
            "10": _CLOSED,  # bad or missing token
            "100": _LATER,  # maintenance
            "300": _REFUSED,
            "400": _SENDER,  # sender signature not found
            "401": _SENDER,  # sender signature not confirmed
            "405": _QUOTA,  # not allowed to send: out of credits
            "406": _RECIPIENT,  # inactive recipient
            "409": _REFUSED,
            "411": _REFUSED,
            "412": _CLOSED,  # account pending
            "413": _CLOSED,  # account may not send
            "429": _SLOWER,
            "1235": _CLOSED,  # message stream not found
        },
        # https://postmarkapp.com/developer/user-guide/send-email-with-api/batch-emails; its log
        # is searched by metadata, so a doubt is cleared up within minutes.
        batch=Batch(messages=500, size=50_000_000, in_doubt=500),
    ),
    "sendgrid": Traits(
        "anymail.backends.sendgrid.EmailBackend",
        statuses={403: _SENDER},  # no verified sender identity
        # https://www.twilio.com/docs/sendgrid/for-developers/sending-email/personalizations: a
        # body of one's own only by substitutions, 10,000 bytes of them at most for each mail.
        no_batch="one body per call; what may differ is too small for a mail",
    ),
    "mailgun": Traits(
        "anymail.backends.mailgun.EmailBackend",
        statuses={404: _SENDER},  # the sender's domain is not one of this account
        # https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/batch-sending
        # names no way to a Message-ID for each recipient, by which its log is searched here.
        no_batch="one Message-ID for all mails of a call",
    ),
    "brevo": Traits(
        "delivery.backends.keyed.BrevoBackend",
        code_at=("code",),
        codes={
            "not_enough_credits": _QUOTA,
            "account_under_validation": _CLOSED,
            "unauthorized": _CLOSED,
            "permission_denied": _CLOSED,
        },
        idempotent_seconds=30 * 60,
        # https://developers.brevo.com/docs/batch-send-transactional-emails
        batch=Batch(messages=1_000, size=20_000_000, in_doubt=200, one_sender=True),
    ),
    "resend": Traits(
        "delivery.backends.keyed.ResendBackend",
        code_at=("name",),
        codes={
            "daily_quota_exceeded": _QUOTA,
            "monthly_quota_exceeded": _QUOTA,
            "rate_limit_exceeded": _SLOWER,
            # The first call with this key is still being worked on: ask again what came of it.
            "concurrent_idempotent_requests": _DOUBT,
            # Another mail was sent under this key.
            "invalid_idempotent_request": _DOUBT,
            "security_error": _REFUSED,
            "invalid_api_key": _CLOSED,
            "missing_api_key": _CLOSED,
            "restricted_api_key": _CLOSED,
        },
        statuses={403: _SENDER},  # the domain is not verified
        idempotent_seconds=24 * _HOUR,
        # https://resend.com/docs/dashboard/emails/batch-sending; its log cannot be searched, but a
        # call is repeated under its key at once, see `delivery.offering`.
        batch=Batch(messages=100, size=40_000_000, in_doubt=100),
        counts_calls=True,  # https://resend.com/docs/api-reference/rate-limit
    ),
    "mailersend": Traits(
        "anymail.backends.mailersend.EmailBackend",
        secrets=("api_token",),
        has_metadata=False,
        # https://developers.mailersend.com/api/v1/email.html#send-bulk-emails
        no_batch="takes a bulk call first and says later, elsewhere, which mails it has refused",
    ),
    "mailjet": Traits(
        "anymail.backends.mailjet.EmailBackend",
        secrets=("api_key", "secret_key"),
        # https://dev.mailjet.com/email/guides/send-api-v31/: no log that is searched here.
        batch=Batch(messages=50, size=15_000_000, in_doubt=50),
    ),
    "sparkpost": Traits(
        "anymail.backends.sparkpost.EmailBackend",
        code_at=("errors", 0, "code"),
        codes={
            "7001": _SENDER,  # sending domain not configured
            "1902": _REFUSED,  # message generation rejected
        },
        statuses={420: _QUOTA},
        # https://developers.sparkpost.com/api/transmissions/: a transmission has one content.
        no_batch="one body per call, and no answer for each recipient",
    ),
    "postal": Traits(
        "anymail.backends.postal.EmailBackend",
        needs_api_url=True,
        has_metadata=False,
        # It answers 200 and says in the body that it did not take the mail.
        code_at=("data", "code"),
        codes={
            "AccessDenied": _CLOSED,
            "InvalidServerAPIKey": _CLOSED,
            "ServerSuspended": _CLOSED,
            "UnauthenticatedFromAddress": _SENDER,
            "AttachmentMissingData": _REFUSED,
            "AttachmentMissingName": _REFUSED,
            "FromAddressMissing": _REFUSED,
            "NoContent": _REFUSED,
            "NoRecipients": _REFUSED,
            "TooManyToAddresses": _REFUSED,
            "ValidationError": _REFUSED,
        },
        # https://github.com/postalserver/postal/blob/main/app/controllers/legacy_api/send_controller.rb
        no_batch="one body per call",
    ),
}

STATUSES: Mapping[int, Answer] = {
    401: _CLOSED,
    402: _CLOSED,
    403: _CLOSED,
    408: _DOUBT,
    425: _LATER,
    429: _SLOWER,
}
"""What HTTP statuses mean with everybody. Besides: 2xx accepted, 503 with Retry-After later,
other 5xx a doubt, other 4xx refused."""
