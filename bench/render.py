"""Templates over data, and the bytes of the mail they become: compiled, and by python-liquid."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

import django

from bench.comparison import Comparison, Sample, Series
from bench.processes import BenchError
from bench.report import say
from bench.scale import Scale

if TYPE_CHECKING:
    from content.rendering import RenderedEmail
    from content.running import Part

_MAILS = "mails/s"
_COUNT = 4_000
_ROWS = 10
_PARAGRAPH = (
    '<p style="margin:0 0 16px;font-size:16px;line-height:1.6;color:#17212b">Dear '
    '{{ name | default: "customer" }}, your order has left our house at the harbour this morning '
    "and travels by rail and on a bicycle. We will tell you when it is in your street, and you can "
    "still change the door it is brought to, or the neighbour who takes it.</p>\n"
)
_ROW = (
    '<tr><td style="padding:8px 12px;border-bottom:1px solid #dde3e9">{{ item.name }}</td>'
    "<td>{% if item.quantity > 1 %}{{ item.quantity }} × {% endif %}{{ item.price }} "
    '{{ order.currency }}</td><td><a href="https://shop.example/things/{{ item.id }}">Show</a>'
    "</td></tr>\n"
)
_SOURCES = {
    "subject": "Your order {{ order.id }}, {{ name }}",
    "preheader": "{{ order.items.size }} things are on their way",
    "html": f"<h1>Hello {{{{ name }}}}</h1>\n{_PARAGRAPH * 4}<table>\n"
    f"{{% for item in order.items %}}{_ROW}{{% endfor %}}</table>\n{_PARAGRAPH * 3}",
    "text": "Hello {{ name }}\n\n{% for item in order.items %}{{ item.quantity }} × "
    "{{ item.name }}: {{ item.price }}\n{% endfor %}\nThank you.\n",
}


@dataclass(slots=True)
class _Side:
    """What makes a mail out of the data of its number, and how fast that was per round."""

    name: str
    make: Callable[[int], Any]
    part: float = 1.0
    """Of the count: what is much slower makes fewer."""
    samples: list[Sample] = field(default_factory=list)


def render(scale: Scale, _logs: Path) -> list[Comparison]:
    """A mail of 5 KB with a loop of ten rows: its four parts, and all of it. One process, and
    seconds of its processor, because nothing here waits for anything."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    return [
        _compare("Subject, preheader, HTML and text from data", _templates(), scale),
        _compare("From the stored message to the bytes of the mail", _mails(), scale),
    ]


def _compare(title: str, sides: Sequence[_Side], scale: Scale) -> Comparison:
    count = scale.of(_COUNT)
    for number in range(scale.rounds):
        say(f"{title}: round {number + 1} of {scale.rounds}")
        for side in reversed(sides) if number % 2 else sides:
            side.samples.append(_measure(side, max(1, round(count * side.part))))
    ours, baseline, *others = (Series(side.name, side.samples) for side in sides)
    return Comparison(title, _MAILS, count, ours, baseline, others)


def _measure(side: _Side, count: int) -> Sample:
    side.make(0)
    start = time.process_time()
    for number in range(count):
        side.make(number)
    return {_MAILS: count / (time.process_time() - start)}


def _data(number: int) -> dict[str, Any]:
    items = [
        {"id": f"t-{row}", "name": f"Thing {row} & more", "quantity": row, "price": f"{row}.50"}
        for row in range(_ROWS)
    ]
    order = {"id": f"A-{number}", "currency": "EUR", "items": items}
    return {"name": f"Reader {number}", "order": order}


# --- The parts ----------------------------------------------------------------------------


def _templates() -> list[_Side]:
    from content.rendering import compile_part
    from content.running import run

    parts = {name: compile_part(name, source) for name, source in _SOURCES.items()}

    def compiled(number: int) -> list[str]:
        data = _data(number)
        return [run([part], data)[0] for part in parts.values()]

    def parsed_once(number: int) -> list[str]:
        return _by_liquid(parts, _data(number))

    def parsed(number: int) -> list[str]:
        return _by_liquid(_parsed(), _data(number))

    if not compiled(7) == parsed_once(7) == parsed(7):
        raise BenchError("the two ways of rendering differ")
    return [
        _Side("emailauto", compiled),
        _Side("python-liquid, parsed once", parsed_once, 0.25),
        _Side("python-liquid, parsed for each mail", parsed, 0.02),
    ]


def _by_liquid(parts: Mapping[str, "Part"], data: dict[str, Any]) -> list[str]:
    from content.running import run_liquid
    from content.sandbox import Context

    return [run_liquid([part], Context(part.template, globals=data))[0] for part in parts.values()]


def _parsed() -> dict[str, "Part"]:
    from content import sandbox
    from content.escaping import place
    from content.running import Part

    templates = {name: sandbox.parse(source) for name, source in _SOURCES.items()}
    place(templates["html"].nodes, fragment=True)
    return {name: Part(template, None) for name, template in templates.items()}


# --- The whole mail -----------------------------------------------------------------------


def _mails() -> list[_Side]:
    from common.clock import now
    from content import running
    from content.models import TemplateVersion
    from delivery.models import Message, Provider, Sender
    from delivery.outbound import build_outbound, render_message
    from delivery.states import Stream

    moment = now()
    provider = Provider(key="bench")
    sender = Sender(name="Lighthouse Goods", email="hello@example.com", provider=provider)
    # A key, so that it is kept; no row has a negative one.
    version = TemplateVersion(pk=-1, published_at=moment, **_SOURCES)

    def message(number: int) -> Message:
        return Message(
            pk=UUID(int=number),
            template_version=version,
            stream=Stream.TRANSACTIONAL,
            context={"payload": _data(number)},
            created_at=moment,
        )

    def ours(number: int) -> bytes:
        return build_outbound(
            message(number),
            sender=sender,
            provider=provider,
            address="reader@example.com",
            has_metadata=False,
        ).email.wire

    def usual(number: int) -> bytes:
        with mock.patch.object(running, "run_code", running.run_liquid):
            mail = render_message(message(number), sender)
        return _written(mail, number, moment)

    return [_Side("emailauto", ours), _Side("python-liquid parsed once, Django", usual, 0.1)]


def _written(mail: "RenderedEmail", number: int, moment: datetime) -> bytes:
    """As Django's users write it."""
    from django.core.mail import EmailMultiAlternatives

    email = EmailMultiAlternatives(
        mail.subject,
        mail.text,
        "Lighthouse Goods <hello@example.com>",
        ["reader@example.com"],
        headers={
            "Message-ID": f"<{number}@example.com>",
            "Date": format_datetime(moment),
            "Auto-Submitted": "auto-generated",
        },
    )
    email.attach_alternative(mail.html, "text/html")
    return email.message().as_bytes()
