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
    UNCLEAR = "unclear"
    """Not taken, and nobody knows why."""
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
    """The meaning of one error code; `wait` in seconds where the provider tells no time itself.
    `worded`: its meaning if these words stand in the error's text."""

    meaning: Meaning
    wait: float | None = None
    worded: tuple[str, Meaning] | None = None


_REFUSED, _LATER = Answer(Meaning.REFUSED), Answer(Meaning.LATER)
_SLOWER, _CLOSED, _DOUBT = (Answer(m) for m in (Meaning.SLOWER, Meaning.CLOSED, Meaning.DOUBT))
_QUOTA = Answer(Meaning.CLOSED, wait=_HOUR)
_SENDER = Answer(Meaning.SENDER)
_RECIPIENT = Answer(Meaning.RECIPIENT)
# SES says this of a virus and of a sender it does not know; only its text tells which.
_REJECTED = Answer(Meaning.REFUSED, worded=("not verified", Meaning.SENDER))


@dataclass(frozen=True, slots=True)
class Batch:
    """How many mails a provider takes in one call, each with a body, headers and metadata of its
    own. See `delivery.backends.batching` for how such a call is made."""

    messages: int
    size: int
    """In bytes, of the whole call."""
    in_doubt: int
    """So many are put into a call unless a provider's row says otherwise: of a call without an
    answer all its mails are in doubt together. Where nothing can clear up such a doubt, few."""
    one_sender: bool = False
    """Its mails share sender and campaign, which the provider takes once per call."""
    one_template: bool = False
    """And the template, because what their bodies have in common goes once, too."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One provider. `codes` are looked up before the HTTP status; they stand in the header
    `code_header`, or they are what `code_at` leads to in the JSON body of an error: keys from the
    outside in, `0` for the first of a list."""

    backend: str
    secrets: tuple[str, ...] = ("api_key",)
    """The backend's options that the environment variables of a provider row fill, in order."""
    needs_api_url: bool = False
    code_at: tuple[str | int, ...] = ()
    code_header: str = ""
    code_else: tuple[str, ...] = ()
    """Keys of the body where it stands if it stands in neither."""
    codes: Mapping[str, Answer] = field(default_factory=dict)
    """A 2xx with a code that is not listed here is a doubt."""
    success: tuple[str, str] | None = None
    """Where every answer is a 200: a key of the JSON body, and what stands there if the mail was
    taken. A body that does not say so leaves it in doubt."""
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
        code_at=("Status",),  # of an entry of a bulk call's answer
        code_header="x-amzn-ErrorType",
        code_else=("__type", "code"),  # where botocore looks, too
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
            "IncompleteSignature": _CLOSED,
            "InvalidAction": _CLOSED,
            "InvalidClientTokenId": _CLOSED,
            "InvalidSignatureException": _CLOSED,
            "MissingAuthenticationTokenException": _CLOSED,
            "NotAuthorized": _CLOSED,
            "RequestExpired": _CLOSED,  # by our clock
            "SignatureDoesNotMatch": _CLOSED,
            "UnrecognizedClientException": _CLOSED,
            "OptInRequired": _CLOSED,
            "BadRequestException": _REFUSED,
            "MessageRejected": _REJECTED,
            "InvalidParameterValue": _REFUSED,
            "ValidationException": _REFUSED,
            "MESSAGE_REJECTED": _REJECTED,
            "INVALID_PARAMETER": _REFUSED,
            "FAILED": _REFUSED,
            "TRANSIENT_FAILURE": _LATER,
            "MAIL_FROM_DOMAIN_NOT_VERIFIED": _SENDER,
            "ACCOUNT_THROTTLED": _SLOWER,
            "ACCOUNT_DAILY_QUOTA_EXCEEDED": _QUOTA,
            "ACCOUNT_SENDING_PAUSED": _CLOSED,
            "ACCOUNT_SUSPENDED": _CLOSED,
            "CONFIGURATION_SET_NOT_FOUND": _CLOSED,
            "CONFIGURATION_SET_SENDING_PAUSED": _CLOSED,
            "INVALID_SENDING_POOL_NAME": _CLOSED,
            "TEMPLATE_NOT_FOUND": _REFUSED,
        },
        # https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendBulkEmail.html; its key
        # has to be allowed that, too, so nobody gets it unasked.
        batch=Batch(messages=50, size=1_000_000, in_doubt=1, one_sender=True, one_template=True),
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
        # https://www.twilio.com/docs/sendgrid/for-developers/sending-email/personalizations; a
        # doubt is cleared up by its webhooks alone.
        batch=Batch(
            messages=1_000, size=20_000_000, in_doubt=100, one_sender=True, one_template=True
        ),
    ),
    "mailgun": Traits(
        "anymail.backends.mailgun.EmailBackend",
        statuses={404: _SENDER},  # the sender's domain is not one of this account
        # https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/batch-sending;
        # its log is searched by Message-ID.
        batch=Batch(
            messages=1_000, size=25_000_000, in_doubt=100, one_sender=True, one_template=True
        ),
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
        # 403: the domain is not verified. 409: this key was used before, see the codes.
        statuses={403: _SENDER, 409: _DOUBT},
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
        success=("status", "success"),
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
"""What HTTP statuses mean with everybody. Besides: 2xx accepted, 503 with Retry-After slower,
other 5xx a doubt, other 4xx refused."""
