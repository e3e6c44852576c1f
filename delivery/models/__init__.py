"""The tables of delivery."""

from delivery.models.limits import Quota
from delivery.models.messages import Attempt, DeadLetter, Message, SandboxMail
from delivery.models.providers import Circuit, Provider, Sender
from delivery.models.switches import Pardon, Switch
from delivery.models.warmup import Warmup, WarmupPlan, WarmupStage

__all__ = [
    "Attempt",
    "Circuit",
    "DeadLetter",
    "Message",
    "Pardon",
    "Provider",
    "Quota",
    "SandboxMail",
    "Sender",
    "Switch",
    "Warmup",
    "WarmupPlan",
    "WarmupStage",
]
