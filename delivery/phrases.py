"""What mail servers say, as patterns over plain words.

Servers are untrusted: every pattern begins at a word and has bounded gaps only, so that its time
grows with the text's length and not faster. In a phrase ` ~ ` stands for up to five words.
"""

import re

_ADDRESS = re.compile(r"[^\s<>@()\[\]{}:;,\"']{1,64}@[^\s<>@()\[\]{}:;,\"']{1,255}")
_WORD = re.compile(r"[^\W\d_][^\W_]*")
_APOSTROPHES = str.maketrans("", "", "'’`")


def plain_words(text: str) -> str:
    """The words of a reply in lower case, divided by single spaces.

    Punctuation, line breaks, status codes, IP addresses and e-mail addresses are left out: they
    tear phrases apart, and a mailbox may be called `blocked`.
    """
    without_addresses = _ADDRESS.sub(" ", text.lower())
    return " ".join(_WORD.findall(without_addresses.translate(_APOSTROPHES)))


def _any_of(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(phrases).replace(' ~ ', '(?: [^ ]+){0,5} ')})\b")


AUTO_REPLY = _any_of(
    r"out of (the )?office|away from (the office|my (desk|e ?mail))",
    r"auto ?(matic(ally)?|mated)? ?(generated )?(reply|replies|respon(se|d|der|ding))",
    r"(vacation|absence) (reply|message|response|notice|notification)",
    r"on (vacation|holidays?|(annual|maternity|paternity|parental|sick) leave|leave until)",
    r"i (am|will be) (currently |presently )?(away|out of|on leave|not available)",
    r"boxbe|confirm (that )?you are (a )?human",
    r"abwesen\w*|automatische antwort|nicht im (büro|haus)|bin (im|in) urlaub",
    r"réponse automatique|absente? du bureau|en congés?",
    r"fuera de la oficina|respuesta automática|risposta automatica|fuori (sede|ufficio)",
    r"автоответ\w*|自动回复|自動返信\w*",
)

TEMPORARY_CHECK = _any_of(
    r"temporar\w+ (dns|lookup|resol\w+|verif\w+|spf|dkim|dmarc)",
    r"temporar\w+ (error|failure|problem) ~ (dns|lookup|resol\w+|verif\w+|callout|spf|dkim|dmarc)",
    r"(spf|dkim|dmarc|dns|verif\w+|callout) (temporar\w+|timed? ?out)|temp ?error",
    r"(?<!reverse )dns (error|failure|query (error|failed)|lookup (error|failed))",
)

_NOT = r"(not|cannot|cant|couldnt|doesnt|didnt|isnt|wasnt|wont)"
_SENDER = (
    r"(senders?|return path|(header|envelope) from|mail from (address|domain|is)|"
    r"from (address|domain|header)|helo|ehlo)"
)
_OF_SENDER = (
    r"(address |domain |domains |s |is |was |has |been |host |name |hostname |command |rejected |"
    r"the |of |ip |mail |email |verify |verification |callout |does |do ){0,5}"
)

NOT_AUTHENTICATED = _any_of(
    r"(spf|dkim|dmarc|domainkeys|senderid) ~ (fail\w*|softfail|reject\w*|polic\w+|denied|invalid|"
    r"missing|unauthori[sz]ed|violat\w+|quarantine|error|misaligned|unaligned|required|none)",
    rf"(spf|dkim|dmarc) ~ {_NOT} ~ "
    r"(pass|allow|permit|authori[sz]e|align|sign|match|exist|valid|verif)\w*",
    r"(fail\w*|violat\w+|due to|because of|rejected by|per|missing|bad|without|no valid|lacks?|"
    r"unaligned|misaligned|requires?) ~ (spf|dkim|dmarc)",
    rf"{_NOT} (pass|have|meet|align|authenticat)\w* ~ (spf|dkim|dmarc|authentication)",
    r"(dmarc|spf|dkim) (policy|check|settings)|ip name lookup failed",
    r"reverse (dns|host ?name|host|lookup|name|mapping|address|ip|pointer|record)|rdns|fcrdns|ptr",
    r"(cannot|cant|could not|unable to) (find|resolve) (your|client) ~ (name|address|host\w*)",
    rf"{_SENDER} {_OF_SENDER}(invalid|unknown|malformed|unverified|unresolvable|undeliverable|"
    r"unauthenticated|forged|failed|need fully|mismatch|isnt valid|no (mx|a|dns)|null ?mx|"
    r"not (found|valid|verified|exist|passed|resolv\w+|fully|permitted)|resolve fail\w*|"
    r"(does not|doesnt|must) (exist|resolve|match|accept|have)|"
    r"(cannot|could not|couldnt) be (resolved|verified|found))",
    r"(helo|ehlo) ~ (denied|rejected)",
    rf"(invalid|bad|forged|fake|unresolvable|malformed) (domain of )?{_SENDER}(?! ip)",
    r"unauthenticated (e ?mails?|mails?|messages?|senders?)",
    r"(mail|email|message|sender|domain) (is |was )?(unauthenticated|not authenticated)",
    r"authentication (checks?|level|requirements|policy)",
)

# By asking our own server about the sender's address; its answer may be quoted, code and all.
SENDER_REFUSED = _any_of(
    r"sender (verif\w+|callout|callback) ~ fail\w*",
    r"sender address rejected ~ (undeliverable|unverified|unknown|not found)",
)

OWNER_CHANGED = _any_of(r"owner(ship)? ~ changed|changed (owners?|ownership|hands)|has a new owner")

_NOT_THE_BOX = r"(?! (in|on) (the |this |your )?(mailbox|server|inbox|account))"
_RATE = (
    r"(connection|session|sending|submission|hourly|daily|relay|receiv\w+|per (hour|minute|day))"
)

THROTTLED = _any_of(
    r"rate ?limit\w*|throttl\w+|frequency (is )?limit\w*|slow(ing)? down",
    r"too many (unknown|invalid|bad|failed|nonexistent|non existent)",
    r"too many ((concurrent|simultaneous|smtp|esmtp|open|new|incoming|e|mail) ){0,3}"
    rf"(messages?|e?mails?|connections?|sessions?|requests?|errors?|commands?){_NOT_THE_BOX}",
    r"too many recipients ~ (in|per|for|this|from|within|today|received)",
    r"(excessive|unexpected) (volume|rate|connections?|unknown recipients|number of)",
    r"too (quickly|fast|frequently|often|much (mail|traffic))|at a rate that",
    r"deferred due to|temporarily deferred|reduce ~ (rate|volume|speed|connections)",
    rf"{_RATE} ~ (limits?|quotas?) ~ (exceeded|reached|hit)",
    rf"exceed\w* ~ {_RATE} ~ (limits?|quotas?|rates?|allowed)|exceed\w* ~ permitted limits",
    r"(maximum|max|concurrent|simultaneous) (number of )?(connections?|sessions?|messages per)",
    r"(messages?|e?mails?|connections?) ~ (per|in the last|in an|in one) (hour|minute|day|second)",
    r"server busy please try again later from",
    r"mailbox unavailable or access denied",  # QQ, of a mailbox that gets too much at the moment
    r"trop de (connexions|messages)|service refus[eé] veuillez essayer plus tard",
    r"(hl|mi|rp) (ifc|icc|sfq|drc|dmc|imf|ccl)",  # 163, 126
)

_BOX = (
    r"(mail ?box|in ?box|account|user|recipient|quota|storage|disk|mail ?folder|folder|maildir)"
    r" ((s|is|are|for|user|has|mailbox|inbox|folder|quota|currently|already|too) ){0,4}"
)

MAILBOX_FULL = _any_of(
    rf"{_BOX}full|over ?([^ ]+ ){{0,3}}quota",
    r"quota ~ (exceeded|reached|full|violation|exhausted)",
    r"exceed\w* ~ (quota|storage|allocation|mailbox size|disk|space)",
    r"(exhausted|out of|not enough|insufficient|no|lack of) ([^ ]+ ){0,3}(storage|disk|space)",
    r"mailbox size limit|mailbox (has )?reached ~ (limit|maximum|quota)|mailbox (would )?exceed\w*",
    r"too many messages (in|on) (the |this |your )?(mailbox|server|inbox|account)",
    r"bo[iî]te ~ pleine|postfach ~ voll|speichervolumen|buzón ~ lleno|casella ~ piena",
    r"caixa ~ cheia|переполнен\w*|邮箱已满",
)

GREYLISTED = _any_of(r"gr[ae]y ?list\w*|postgrey")

TEMPORARY = _any_of(r"temporar\w+|vorübergehend")

LISTED = _any_of(
    r"spamhaus|spamcop|sorbs|barracudacentral|uceprotect|senderscore|mailspike|invaluement|abuseat",
    r"backscatterer|psbl|surbl|uribl|dnsbl\w*|rbls?|(black|block|deny) ?list\w*",
    r"blocked (using|by)|(?<!not )listed (in|by|on|at)",
)

# One, not several: "blocked for sending to unknown users" is said of the sender.
_WHO = (
    r"(user|recipient|mail ?box|account|address|addressee|alias|inbox|person|customer|subscriber|"
    r"local part|employee)"
)
_NOT_OURS = r"(?<!sender )(?<!from )(?<!your )(?<!ip )(?<!host )(?<!your email )(?<!your mail )"
_KIND = r"((local|virtual|final|destination|mail|email|e|or|illegal|recipient|rcpt|user|to) ){0,3}"
_GONE = (
    r"(disabled|deactivated|inactive|inactivated|closed|deleted|terminated|discontinued|"
    r"cancell?ed|expired|abandoned)"
)
_ABOUT_HIM = (
    r"(?: (?!sender|sending|sent|from|client|ip|host|hostname|server|policy|your|domain|dns|relay|"
    r"login|password)[^ ]+){0,6}"
)

UNKNOWN_RECIPIENT = _any_of(
    r"(unknown|no such|non ?existent|non ?existing|unroutable|unrouteable|unrecogni[sz]ed|"
    rf"undeliverable) {_KIND}{_NOT_OURS}{_WHO}",
    rf"(invalid|bad|illegal|unregistered|obsolete|{_GONE}) {_KIND}"
    r"(user|recipient|mail ?box|account|alias|email address|customer)",
    r"(invalid|bad) (recipient|mailbox|destination|to) (mailbox )?address",
    rf"{_NOT_OURS}({_WHO}|users|recipients|addresses){_ABOUT_HIM} (unknown|invalid|"
    rf"unrecogni[sz]ed|non ?existent|{_GONE}|has (moved|left|been removed)|"
    r"no longer (exists?|valid|active|available|in (use|service)|used|accepts?|accepting|with|"
    r"works?|employed|monitored|here)|"
    r"not (found|known|exist|valid|recogni[sz]ed|listed|registered|active|activated|present|"
    r"in use)|(could not|couldnt|cannot|cant) be (found|located)|"
    r"(does not|doesnt|do not|dont|did not|didnt) exist|is(nt| not) a valid|isnt valid|"
    r"not in (our|the|my) (directory|system|database))",
    r"(does not|doesnt|do not|dont) have an? ([^ ]+ ){0,3}(account|mailbox)",
    r"no (valid |local |such |active )?(mailbox|user|recipient|account|person|alias|one) "
    r"([^ ]+ ){0,2}(here|by that name|with that name|of that name|at this|exists)",
    r"(not|isnt) ((a|an|our|valid|known|existing|local|current|active|registered) ){1,3}"
    r"(user|mailbox|recipient|customer|account|subscriber|employee)",
    r"(unable to|could not|couldnt|cannot|cant) (find|locate|look ?up) ~ "
    r"(user|recipient|mailbox|account)",
    r"not found (recipient|user|mailbox)|nosuchuser|recip(ient)?notfound|"
    r"no longer (works|employed)",
    r"mailbox unavailable for explanation visit",  # GMX, WEB.DE, 1&1, of an unknown address
    r"domain ~ (does not|doesnt) accept e?mail|null ?mx",
    r"(destinataire|utilisateur) ~ (inconnue?|invalide|inexistante?)",
    r"(empfänger|benutzer|postfach) ~ (unbekannt|existiert nicht|nicht (bekannt|gefunden))",
    r"(usuario|destinatario|buzón) ~ (desconocido|no existe)|no existe ~ (usuario|persona|buzón)",
    r"(nessun|non esiste) ~ utente|(utente|destinatario) ~ (sconosciuto|inesistente)",
    r"usuário ~ (desconhecido|inexistente)",
    r"нет такого (пользователя|ящика)|пользовател\w+ не (найден|существует)",
    r"用户不存在|邮箱不存在|收件人不存在",
)

# What some say instead, each with a code of its own; elsewhere the words may mean anything.
UNKNOWN_TO_CISCO = _any_of(r"(?<!sender )(?<!ip )address rejected")
UNKNOWN_TO_EXCHANGE = _any_of(r"recipient address rejected access denied")
UNKNOWN_TO_OUTLOOK = _any_of(r"mailbox unavailable")

OF_THIS_MESSAGE = _any_of(
    r"(?<!spam or )virus(es)?|malware|infected|trojan|eicar",
    r"(attachments?|files?) ~ (not (allowed|permitted|accepted)|blocked|banned|prohibited|"
    r"forbidden|illegal|disallowed|rejected|denied|dangerous|unacceptable)",
    r"(illegal|prohibited|forbidden|dangerous|executable|banned|blocked|unacceptable|restricted) "
    r"([^ ]+ ){0,2}(attachments?|files?)",
    r"not accept\w* ~ attachments?|potential security issue|potentially (harmful|dangerous|unsafe)",
    r"(message|mail|email|body|headers?|attachment|content|line|size) "
    r"((is|was|size|s|file|length|has|been) ){0,3}(too (large|big|long)|exceed\w*)",
    r"exceed\w* ~ (size|length)|(message|mail|maximum|fixed|attachment) size",
    r"(missing|invalid|malformed|duplicated?|multiple|bad|illegal) ([^ ]+ ){0,3}headers?",
    r"headers? ~ (missing|invalid|malformed|required)|missing (from|date|subject|message id)",
    r"rfc ~ (compliant|compliance|violation|conform\w*)|not compliant|bare lf",
    r"smtputf8|(charset|character set|encoding) ~ (supported|unsupported|allowed)",
)

DISLIKED = _any_of(
    r"[a-z]*spam[a-z]*|junk\w*|unsolicited|bulk|abus(e|ive)|complaints?|phish\w*|suspicious",
    r"reputation|polic(y|ies)|prohibit(ed|ion)|banned|blocked|blocks?|forbidden",
    r"relay(ing)? (access )?(is )?(denied|not (permitted|allowed)|prohibited)|unable to relay",
    r"permanently deferred|content (was )?(rejected|denied|refused)",
    r"not (currently )?accept(ing|ed)? (e?mails?|messages?|connections?) from|"
    r"rejected by recipients?|your access ~ (rejected|denied|refused)",
    r"not (authori[sz]ed|allowed|permitted) to (send|deliver|mail|connect)",
    r"a problem occurred ask your postmaster",  # T-Online, of an address without a reputation
    r"dt spm",  # 163, 126
    r"mail rejet[eé] mail rejected",  # Orange
)
