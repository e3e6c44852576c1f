"""The running stack described: `run.json` for programs, a banner for people."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emailauto.supervisor.environment import DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where the stack answers and how to log in to it."""

    url: str
    port: int
    api_key: str
    admin_login: Mapping[str, str]
    webhook_secret: str

    def run_file(self, pids: Mapping[str, int]) -> str:
        """Return `run.json`."""
        document: dict[str, Any] = {
            "url": self.url,
            "admin_url": f"{self.url}/admin/",
            "inbox_url": f"{self.url}/admin/delivery/sandboxmail/",
            "docs_url": f"{self.url}/api/docs",
            "api_key": self.api_key,
            "admin_login": dict(self.admin_login),
            "webhook_secret": self.webhook_secret,
            "pids": dict(pids),
        }
        return json.dumps(document, indent=1) + "\n"

    def banner(self, *, is_port_chosen: bool) -> str:
        """Return the text; `is_port_chosen`: the operator named the port."""
        login = self.admin_login
        moved = not is_port_chosen and self.port != DEFAULT_PORT
        note = f" ({DEFAULT_PORT} was taken; PORT=… chooses)" if moved else ""
        return f"""
emailauto runs at {self.url}{note}

  Admin   {self.url}/admin/   {login.get("username", "")} / {login.get("password", "")}
  Inbox   {self.url}/admin/delivery/sandboxmail/
  API     {self.url}/api/docs

Send an event:

{self._curl()}

Ctrl-C stops everything.
"""

    def _curl(self) -> str:
        """Return a command for bash and zsh; none of its values holds a quote."""
        event = {
            "event_id": str(uuid.uuid4()),
            "event_type": "UserSignedUp",
            "user_id": "user-ada",
            "timestamp": time.time_ns() // 1_000_000,
            "payload": {"email": "ada@example.com", "name": "Ada"},
            "metadata": {"source": "auth-service", "region": "eu-west-1"},
        }
        return (
            f"curl -sS {self.url}/api/v1/events \\\n"
            f"  -H 'Authorization: Bearer {self.api_key}' \\\n"
            f"  -H 'Content-Type: application/json' \\\n"
            f"  -d '{json.dumps(event)}'"
        )
