"""How providers take many mails in one call as one mail with fields, and each recipient's values
of them; see `batching`, and `skeletons` for how the fields are found."""

from collections.abc import Sequence
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
import requests

from delivery.backends.batching import NOT_MENTIONED, Batching, Part, refused, taken
from delivery.backends.client import Request
from delivery.backends.http import as_json
from delivery.backends.skeletons import Skeleton, merged, skeleton_of, whole
from delivery.mime import mailbox
from delivery.providers import Traits
from delivery.verdicts import Blame, Outcome, Verdict


class Merging(Batching):
    """What the parts have in common goes once, so how large a call is shows when it is made."""

    def that_fit(self, parts: Sequence[Part], most_bytes: int) -> int:
        # From few to many: what cannot be merged shows in two of them. Those that do not fit are
        # divided again for the next call, so they had better not be all the others each time.
        count = 1
        while count < len(parts):
            more = self.alike(parts[: 2 * count])
            if more <= count or not self.fits(parts[:more], most_bytes):
                break
            count = more
        return count

    def alike(self, parts: Sequence[Part]) -> int:
        """How many of the first of them can be one mail with fields, which is to each address once:
        SendGrid refuses a call with more, and Mailgun would give one mail the other's values."""
        addresses = set[str]()
        for count, part in enumerate(parts):
            address = part.address.lower()
            if address in addresses or not self.is_like(part, parts[0]):
                return count
            addresses.add(address)
        return len(parts)

    def is_like(self, part: Part, first: Part) -> bool:
        """Whether it can be one mail with the first of a call."""
        raise NotImplementedError

    def fits(self, parts: Sequence[Part], most_bytes: int) -> bool:
        """Whether so many are within the provider's limits."""
        # A form may take three bytes for one.
        is_small = sum(len(part.body) for part in parts) <= most_bytes // 3
        return is_small or len(self.body(parts)) <= most_bytes


class SendGrid(Merging):
    """One mail with merge fields, and what is each recipient's own in `personalizations`. What of
    the bodies that is, is seen from the bodies: see `skeletons`. The answer is about all of it.

    https://www.twilio.com/docs/sendgrid/for-developers/sending-email/personalizations
    https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
    """

    path = "mail/send"
    _MOST_MERGED = 10_000
    """Bytes of substitutions for each recipient."""
    _OWN = ("personalizations", "subject", "headers", "custom_args", "content")

    def own(self, payload: Any) -> Any:
        (personalization,) = payload.data["personalizations"]
        (recipient,) = personalization["to"]
        # The answer tells no id, so Anymail gives the mail one, which the webhooks bring back; here
        # the same whether it goes in company or is left alone.
        name = payload.message_ids[recipient["email"]] = str(uuid4())
        personalization["custom_args"] = {"anymail_id": name}
        payload.generate_message_id = False
        return {
            **personalization,
            "subject": payload.data["subject"],
            "headers": dict(payload.data["headers"]),
            "custom_args": {**payload.data.get("custom_args", {}), "anymail_id": name},
            "content": payload.data["content"],
        }

    def is_like(self, part: Part, first: Part) -> bool:
        return _kinds(part) == _kinds(first)

    def fits(self, parts: Sequence[Part], most_bytes: int) -> bool:
        longest = _longest(_skeletons(parts), len(parts))
        return longest <= self._MOST_MERGED and super().fits(parts, most_bytes)

    def body(self, parts: Sequence[Part]) -> bytes:
        skeletons = _skeletons(parts)
        recipients = [msgspec.json.decode(part.body) for part in parts]
        for place, recipient in enumerate(recipients):
            del recipient["content"]
            recipient["substitutions"] = _substitutions(skeletons, place)
        first = parts[0].payload.data
        call = {name: value for name, value in first.items() if name not in self._OWN}
        call["content"] = [
            {"type": kind, "value": skeleton.text}
            for kind, skeleton in zip(_kinds(parts[0]), skeletons, strict=True)
        ]
        return as_json({**call, "personalizations": recipients})

    def of_answer_to_many(
        self, answer: requests.Response, parts: Sequence[Part], traits: Traits
    ) -> list[Verdict] | None:
        if not self.is_about_each(answer):
            return None
        # One for each payload, which has one recipient.
        return [taken(name) for part in parts for name in part.payload.message_ids.values()]


def _kinds(part: Part) -> list[str]:
    return [entry["type"] for entry in part.payload.data["content"]]


def _skeletons(parts: Sequence[Part]) -> list[Skeleton]:
    """Of the text and the HTML."""
    bodies = [[entry["value"] for entry in part.payload.data["content"]] for part in parts]
    return [skeleton_of(texts, _dashed) for texts in zip(*bodies, strict=True)]


def _dashed(field: str) -> str:
    return f"-{field}-"


def _substitutions(skeletons: Sequence[Skeleton], place: int) -> dict[str, str]:
    return {_dashed(field): value for field, value in merged(skeletons, place).items()}


def _longest(skeletons: Sequence[Skeleton], count: int) -> int:
    """Bytes of what one of so many recipients' fields and values take at most."""
    all_of_them = (_substitutions(skeletons, place) for place in range(count))
    return max(sum(len(f) + len(v.encode()) for f, v in own.items()) for own in all_of_them)


class Mailgun(Merging):
    """One form in which `%recipient.<field>%` stands for whatever is each recipient's own; the
    values are in `recipient-variables`, by address. The answer is about all of it.

    Variables are taken in headers, too (that includes Message-ID, as others have tried), and in
    the metadata that come back in webhooks.
    https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/batch-sending
    """

    _BODIES = ("text", "html")
    _TO = "to"
    _MARK = "%recipient"

    def own(self, payload: Any) -> Any:
        return payload.serialize_data()

    def is_like(self, part: Part, first: Part) -> bool:
        # What looks like a variable to Mailgun it would fill.
        is_odd = self._MARK in part.body.decode()
        return not is_odd and set(part.payload.data) == set(first.payload.data)

    def request(self, parts: Sequence[Part], single: Request, api_url: str) -> Request:
        # Its address names the domain.
        kept = {n: v for n, v in single.headers.items() if n.lower() != "content-length"}
        return Request(single.url, kept, self.body(parts))

    def body(self, parts: Sequence[Part]) -> bytes:
        form, values = self._form(parts)
        said = {**form, "recipient-variables": as_json(values).decode()}
        return urlencode(said, doseq=True).encode()

    def _form(self, parts: Sequence[Part]) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        """What is said once, and each one's values by address."""
        forms = [part.payload.data for part in parts]
        form: dict[str, Any] = {self._TO: [form[self._TO][0] for form in forms]}
        skeletons: list[Skeleton] = []
        for name, shared in forms[0].items():
            if name == self._TO:
                continue
            if not isinstance(shared, str):
                form[name] = shared  # sender and tags, which a call's mails have in common
                continue
            skeleton = self._divided(name, [form[name] for form in forms])
            form[name] = skeleton.text
            skeletons.append(skeleton)
        values = {form[self._TO][0]: merged(skeletons, n) for n, form in enumerate(forms)}
        return form, values

    def _divided(self, name: str, texts: Sequence[str]) -> Skeleton:
        if name not in self._BODIES:
            return whole(texts, _variable)
        # Nobody says how it reads two of these in a row.
        return skeleton_of(texts, _variable, not_before="%", not_behind="%")

    def of_answer_to_one(self, answer: requests.Response, traits: Traits) -> Verdict | None:
        return _of_door(answer)

    def of_answer_to_many(
        self, answer: requests.Response, parts: Sequence[Part], traits: Traits
    ) -> list[Verdict] | None:
        if not self.is_about_each(answer):
            return None
        if (verdict := _of_door(answer)) is not None:
            return [verdict] * len(parts)
        return [taken(str(part.payload.data["h:Message-Id"])) for part in parts]


def _variable(field: str) -> str:
    return f"%recipient.{field}%"


_GREETING = b"Mailgun Magnificent API"
_WRONG_DOOR = Verdict(
    Outcome.RETRY, "Mailgun greets: this URL takes no mail", retry_after=60.0, blame=Blame.ROUTE
)


def _of_door(answer: requests.Response) -> Verdict | None:
    """Mailgun says 200 to calls of addresses that it does not have, so it is the body that tells;
    None where it is not the greeting, nor may have begun so."""
    if not answer.ok:
        return None
    said = answer.content.strip(b'" \r\n')
    if not said:
        return NOT_MENTIONED
    return _WRONG_DOOR if _GREETING in said or _GREETING.startswith(said) else None


class SES(Merging):
    """A template that goes along, with `{{field}}` for whatever is each recipient's own, and an
    entry with the values and the headers of each; so has the answer.

    SES fills fields as they are, without escaping, and gives each mail a Message-ID of its own, as
    it does with any mail.
    https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendBulkEmail.html
    https://docs.aws.amazon.com/ses/latest/dg/send-personalized-email-api.html
    """

    path = "v2/email/outbound-bulk-emails"
    _MOST_MERGED = 262_144
    """Characters of the values for each recipient, in JSON."""
    _MOST_HEADERS, _LONGEST_HEADER = 15, 995
    _BRACES = "{{"
    _ITS_OWN = ("Message-ID", "Date")

    def own(self, payload: Any) -> Any:
        mail = payload.message
        kept = {n: str(v) for n, v in mail.extra_headers.items() if n not in self._ITS_OWN}
        html, _ = mail.alternatives[0]
        return {
            "headers": [*kept.items(), *payload.own_headers],
            "words": {"Subject": mail.subject, "Text": mail.body, "Html": html},
        }

    def is_like(self, part: Part, first: Part) -> bool:
        headers = msgspec.json.decode(part.body)["headers"]
        return (
            self._BRACES.encode() not in part.body
            and len(headers) <= self._MOST_HEADERS
            and all(v.isascii() and v.isprintable() for _, v in headers)
            and all(len(v) <= self._LONGEST_HEADER for _, v in headers)
        )

    def fits(self, parts: Sequence[Part], most_bytes: int) -> bool:
        longest = max(
            len(entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"])
            for entry in self._call(parts)["BulkEmailEntries"]
        )
        return longest <= self._MOST_MERGED and super().fits(parts, most_bytes)

    def body(self, parts: Sequence[Part]) -> bytes:
        return as_json(self._call(parts))

    def _call(self, parts: Sequence[Part]) -> dict[str, Any]:
        mails = [msgspec.json.decode(part.body) for part in parts]
        names = mails[0]["words"]
        skeletons = [_of_template([mail["words"][name] for mail in mails]) for name in names]
        words = {name: s.text for name, s in zip(names, skeletons, strict=True)}
        first = parts[0].payload
        return {
            **{name: v for name, v in first.params.items() if name != "Destination"},
            "FromEmailAddress": mailbox(*parseaddr(first.message.from_email)),
            "ReplyToAddresses": first.message.reply_to,
            "DefaultContent": {"Template": {"TemplateContent": words, "TemplateData": "{}"}},
            "BulkEmailEntries": [
                {
                    "Destination": part.payload.params["Destination"],
                    "ReplacementEmailContent": {
                        "ReplacementTemplate": {
                            "ReplacementTemplateData": as_json(merged(skeletons, place)).decode()
                        }
                    },
                    "ReplacementHeaders": [{"Name": n, "Value": v} for n, v in mail["headers"]],
                }
                for place, (part, mail) in enumerate(zip(parts, mails, strict=True))
            ],
        }

    def entries(self, told: Any) -> Sequence[Any]:
        return list(told["BulkEmailEntryResults"])

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        if entry["Status"] == "SUCCESS":
            return taken(entry.get("MessageId"))
        return refused(400, entry, traits) if entry["Status"] in traits.codes else NOT_MENTIONED


def _of_template(texts: Sequence[str]) -> Skeleton:
    # Beside a field these would make another thing of it, or an error.
    return skeleton_of(texts, _braced, not_before="{\\", not_behind="}")


def _braced(field: str) -> str:
    return f"{{{{{field}}}}}"
