"""Which mailbox provider an address belongs to: reputation, pace and warm-up are kept with each.

By the address's domain alone. Companies that let Google or Microsoft host their own domain count
as `other`; telling would take a DNS question per domain.
"""

OTHER = "other"

_DOMAINS = {
    "gmail": "gmail.com googlemail.com",
    "microsoft": (
        "outlook.com hotmail.com live.com msn.com passport.com"
        " outlook.de hotmail.de live.de outlook.fr hotmail.fr live.fr outlook.es hotmail.es live.it"
        " outlook.it hotmail.it hotmail.co.uk live.co.uk live.nl live.se live.ca live.com.au"
        " outlook.jp hotmail.co.jp outlook.com.br hotmail.com.br outlook.com.au outlook.co.id"
    ),
    "yahoo": (
        "yahoo.com ymail.com rocketmail.com aol.com aim.com verizon.net netscape.net myyahoo.com"
        " yahoo.de yahoo.fr yahoo.es yahoo.it yahoo.co.uk yahoo.ca yahoo.co.in yahoo.in"
        " yahoo.com.br yahoo.com.au yahoo.com.mx yahoo.com.ar yahoo.com.sg yahoo.com.ph"
        " yahoo.co.id yahoo.com.vn yahoo.ie yahoo.gr yahoo.se yahoo.no yahoo.dk yahoo.ro"
    ),
    "apple": "icloud.com me.com mac.com",
    "united_internet": "gmx.de gmx.net gmx.at gmx.ch gmx.com web.de mail.com 1und1.de email.de",
    "telekom": "t-online.de magenta.de",
    "orange": "orange.fr wanadoo.fr",
    "sfr": "sfr.fr neuf.fr cegetel.net",
    "free": "free.fr libertysurf.fr",
    "laposte": "laposte.net",
    "italia": "libero.it virgilio.it iol.it inwind.it giallo.it blu.it",
    "comcast": "comcast.net xfinity.com",
    "att": "att.net sbcglobal.net bellsouth.net pacbell.net ameritech.net swbell.net",
    "charter": "charter.net spectrum.net rr.com twc.com",
    "cox": "cox.net",
    "proton": "proton.me protonmail.com pm.me protonmail.ch",
    "fastmail": "fastmail.com fastmail.fm",
    "zoho": "zoho.com zohomail.com zohomail.eu",
    "mailru": "mail.ru bk.ru list.ru inbox.ru internet.ru",
    "yandex": "yandex.ru yandex.com ya.ru yandex.by yandex.kz",
    "tencent": "qq.com foxmail.com vip.qq.com",
    "netease": "163.com 126.com yeah.net",
    "naver": "naver.com",
    "daum": "daum.net hanmail.net kakao.com",
    "seznam": "seznam.cz email.cz",
    "wp": "wp.pl o2.pl tlen.pl",
    "onet": "onet.pl op.pl vp.pl poczta.onet.pl onet.eu",
    "bigpond": "bigpond.com bigpond.net.au telstra.com",
    "uol": "uol.com.br bol.com.br",
}

_BY_DOMAIN = {domain: name for name, domains in _DOMAINS.items() for domain in domains.split()}

MAILBOX_PROVIDERS = (*_DOMAINS, OTHER)

WITHOUT_FEEDBACK_LOOP = ("gmail", "apple", "proton")
"""They tell no sender who complained. Gmail's rate stands in its Postmaster Tools."""


def mailbox_provider(address: str) -> str:
    """One of `MAILBOX_PROVIDERS` for a normalised address."""
    return _BY_DOMAIN.get(address.rpartition("@")[2], OTHER)
