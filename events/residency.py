"""Whose events this deployment may hold: `compliance.residency` of the configuration file."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings

_region_query = ""


def set_region_source(query: str) -> None:
    """Contacts stand above events, so they say here how to look up the region of known people:
    a query with one parameter, a list of user ids, whose rows are (user id, region)."""
    global _region_query
    _region_query = query


def is_restricted() -> bool:
    """Whether there is anything to check."""
    return bool(settings.EMAILAUTO.compliance.residency.regions)


def region_query() -> str:
    """The query given to `set_region_source`, if any."""
    return _region_query


def named_region(metadata: Mapping[str, Any]) -> str:
    """The region an event names itself, or nothing. What is there and is no text is a region that
    no pattern permits."""
    region = metadata.get("region")
    if region is None:
        return ""
    return region if isinstance(region, str) else "?"


def may_hold(*regions: str) -> bool:
    """Whether data of these regions may be kept here; empty ones are unknown.

    Every known region has to be permitted; when none is known, `residency.unknown` decides.
    """
    residency = settings.EMAILAUTO.compliance.residency
    if not residency.regions:
        return True
    known = [region for region in regions if region]
    if not known:
        return bool(residency.unknown == "accept")
    return all(permits(residency.regions, region) for region in known)


def permits(patterns: Iterable[str], region: str) -> bool:
    """Whether one of the patterns, such as `eu-*`, is that of the region; case does not count."""
    return _pattern(tuple(patterns)).fullmatch(region.lower()) is not None


@lru_cache(maxsize=8)
def _pattern(regions: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(region.lower()) for region in regions))
