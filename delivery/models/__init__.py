"""The tables of delivery."""

from delivery.models.limits import Quota
from delivery.models.lookups import LookUp
from delivery.models.messages import Attempt, DeadLetter, Message, SandboxMail
from delivery.models.providers import Circuit, Provider, Sender, SenderPause
from delivery.models.reputation import Bounce, Pardon, Tally
from delivery.models.switches import Switch
from delivery.models.tracking import Link, Visit
from delivery.models.warmup import Warmup, WarmupPlan, WarmupStage

__all__ = [
    "Attempt",
    "Bounce",
    "Circuit",
    "DeadLetter",
    "Link",
    "LookUp",
    "Message",
    "Pardon",
    "Provider",
    "Quota",
    "SandboxMail",
    "Sender",
    "SenderPause",
    "Switch",
    "Tally",
    "Visit",
    "Warmup",
    "WarmupPlan",
    "WarmupStage",
]
