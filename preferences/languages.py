"""Which language a page speaks."""

from django.conf import settings
from django.utils.translation import get_language_info
from django.utils.translation.trans_real import parse_accept_lang_header

_DEFAULT = "en"


def page_language(locale: str, accepted: str) -> str:
    """The person's own language if the pages speak it, else the best of an `Accept-Language`
    header, else English."""
    wanted = [locale, *(code for code, _ in parse_accept_lang_header(accepted))]
    return next((found for code in wanted if (found := _spoken(code))), _DEFAULT)


def language_choices(own: str = "") -> list[tuple[str, str]]:
    """(code, the language's name in itself) of all that the pages speak, and of the person's own
    where it is another or a country's."""
    choices = [(code, get_language_info(code)["name_local"]) for code in settings.PAGE_LANGUAGES]
    if own and own not in settings.PAGE_LANGUAGES:
        spoken = _spoken(own)
        name = f"{get_language_info(spoken)['name_local']} ({own})" if spoken is not None else own
        choices.append((own, name))
    return choices


def _spoken(code: str) -> str | None:
    """`pt-br` for `pt_BR`, `de` for `de-AT`, None for what there is no catalogue of."""
    code = code.replace("_", "-").lower()
    candidates = (code, code.partition("-")[0])
    return next((c for c in candidates if c in settings.PAGE_LANGUAGES), None)
