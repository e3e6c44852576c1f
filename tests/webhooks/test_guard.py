"""The guard (S05): where a URL that somebody else chose may lead, and where it may not."""

import ipaddress
import socket
from typing import Any

import pytest

from webhooks.exchange import exchange
from webhooks.guard import Denied, Place, Unreachable, is_public, place_of

PUBLIC = "93.184.215.14"
DENIED = [
    # loopback, in every spelling
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://127.0.0.53/",
    "https://127.255.255.254/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://0177.0.0.01/",
    "https://127.0.0.0x1/",
    "https://127.0.0.1.0x/",
    "https://000127.0.0.1/",
    "https://127.000.000.001/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://foo.localhost/",
    "https://foo.localhost./",
    "https://localhost.localdomain.localhost/",
    "https://127%2e0%2e0%2e1/",
    "https://%31%32%37.0.0.1/",
    "https://１２７.０.０.１/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://lоcalhost/",  # a Cyrillic о
    # this host, private, shared, link-local, protocol assignments, benchmarks
    "https://0/",
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://3232235521/",
    "https://0xc0a80001/",
    "https://100.64.0.1/",
    "https://100.100.100.200/latest/meta-data/",  # Alibaba's metadata
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/latest/meta-data/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://169.254.170.2/",  # ECS's credentials
    "https://168.63.129.16/",  # Azure's WireServer
    "https://192.0.0.192/",  # Oracle's metadata
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://metadata.google.internal/computeMetadata/v1/",
    # IPv6
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::0001]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::1]/",
    "https://[100::1]/",
    "https://[2001::1]/",
    "https://[2001:0:53aa:64c:0:0:80ff:fffe]/",  # Teredo
    "https://[2001:10::1]/",
    "https://[2001:db8::1]/",
    "https://[2002:7f00:1::]/",  # 6to4 of 127.0.0.1
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2620:4f:8000::1]/",
    "https://[2a00:1450:4001:81b:0:5efe:7f00:1]/",  # ISATAP
    "https://[3fff::1]/",
    "https://[5f00::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",  # AWS's metadata
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[::1/",
    "https://[v1.1]/",
    "https://[127.0.0.1]/",
    # schemes, ports, user names, and what parsers read differently
    "http://consumer.example.com/",
    "ftp://consumer.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "javascript:alert(1)",
    "//consumer.example.com/",
    "consumer.example.com",
    "",
    "https://",
    "https:///path",
    "https://:443/",
    "https://consumer.example.com:80/",
    "https://consumer.example.com:22/",
    "https://consumer.example.com:6379/",
    "https://consumer.example.com:8443/",
    "https://consumer.example.com:0/",
    "https://consumer.example.com:65536/",
    "https://consumer.example.com:port/",
    "https://user@consumer.example.com/",
    "https://user:password@consumer.example.com/",
    "https://consumer.example.com@127.0.0.1/",
    "https://127.0.0.1\\@consumer.example.com/",
    "https://consumer.example.com\\.evil.example/",
    "https://consumer.example.com\t/",
    "https://consumer.example.com\r\nHost: evil/",
    " https://consumer.example.com/",
    "https://consumer.example.com/\x00",
    "https://consumer.example.com /",
    "https://consumer..example.com/",
    "https://.example.com/",
    "https://-consumer.example.com/",
    "https://consumer.example.com../",
    "https://con$umer.example.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 130}com/",
    # names of the own network
    "https://redis/",
    "https://postgres:5432/",
    "https://printer.local/",
    "https://nas.home.arpa/",
    "https://kubernetes.default.svc.cluster.local/",
]
# Where names lead that look like anybody's.
LEADING_INSIDE = {
    "loopback.example.com": ["127.0.0.1"],
    "private.example.com": ["10.1.2.3"],
    "metadata.example.com": ["169.254.169.254"],
    "shared.example.com": ["100.64.9.9"],
    "zero.example.com": ["0.0.0.0"],
    "v6.example.com": ["::1"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "nat64.example.com": ["64:ff9b::a9fe:a9fe"],
    "scoped.example.com": ["fe80::1%eth0"],
    "ula.example.com": ["fd12:3456::1"],
    "one-of-two.example.com": [PUBLIC, "192.168.1.1"],
    "of-both-kinds.example.com": [PUBLIC, "fd00::1"],
}


class Names:
    """A name server: each name has its answers, one after the other; the last one stays."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        try:
            ipaddress.ip_address(host)
            found = [host]
        except ValueError:
            answers = self.answers.get(host)
            if not answers:
                raise socket.gaierror(socket.EAI_NONAME, "unknown") from None
            found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture(autouse=True)
def _strict(settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = []
    settings.OUTGOING_PROXY = ""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names({name: [found] for name, found in LEADING_INSIDE.items()})
    names.answers["consumer.example.com"] = [[PUBLIC]]
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was connected to; nobody takes the connection."""
    addresses: list[Any] = []

    def connect(address: Any, timeout: float) -> socket.socket:
        addresses.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    return addresses


def call(url: str) -> None:
    exchange("POST", url, seconds=5, most_bytes=100, body=b"{}")


def test_table_is_long_enough() -> None:
    assert len({*DENIED, *LEADING_INSIDE}) >= 120


@pytest.mark.parametrize("url", DENIED)
def test_url_is_denied_before_anything_is_asked(
    url: str, names: Names, connected: list[Any]
) -> None:
    with pytest.raises(Denied):
        call(url)
    assert (names.asked, connected) == ([], [])


@pytest.mark.parametrize("host", LEADING_INSIDE)
def test_name_that_leads_inside_is_denied(host: str, names: Names, connected: list[Any]) -> None:
    with pytest.raises(Denied, match="not on the Internet"):
        call(f"https://{host}/")
    assert (names.asked, connected) == ([host], [])


@pytest.mark.parametrize(
    "url",
    [
        "https://consumer.example.com",
        "https://consumer.example.com:443/hook?x=1#part",
        "https://CONSUMER.example.com./",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://xn--bcher-kva.example/",
        "https://under_score.example.com/",
        "https://1.example.com/",
        "https://0x7f.example.com/",
    ],
)
def test_url_on_the_internet_is_allowed(url: str) -> None:
    assert place_of(url).port == 443


def test_url_is_taken_apart() -> None:
    url = "https://Consumer.Example.com./a/b;c?d=e&f#g"
    assert place_of(url) == Place("https", "consumer.example.com", 443, "/a/b;c?d=e&f")
    assert place_of("https://[2606:4700::1]").authority == "[2606:4700::1]"


def test_connection_goes_to_the_address_that_was_looked_at(
    names: Names, connected: list[Any]
) -> None:
    """DNS rebinding: public when it is looked at, loopback ever after."""
    names.answers["rebinding.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(Unreachable):
        call("https://rebinding.example.com/")
    assert connected == [(PUBLIC, 443)]
    assert names.asked == ["rebinding.example.com"]
    with pytest.raises(Denied):
        call("https://rebinding.example.com/")


def test_addresses_are_tried_in_turn(names: Names, connected: list[Any]) -> None:
    names.answers["two.example.com"] = [["2606:4700:4700::1111", PUBLIC]]
    with pytest.raises(Unreachable, match="no connection"):
        call("https://two.example.com/")
    assert connected == [("2606:4700:4700::1111", 443), (PUBLIC, 443)]


def test_unknown_name_is_unreachable(names: Names) -> None:
    with pytest.raises(Unreachable, match="name is unknown"):
        call("https://nobody.example.com/")


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("fd00::/8", "http://[fd00::1]:3000/"),
        ("consumer", "http://consumer:8080/"),
        ("Consumer.internal", "http://consumer.INTERNAL./"),
        ("10.0.0.0/8", "https://private.example.com/"),
        ("private.example.com", "http://private.example.com:9000/"),
    ],
)
def test_own_network_is_reached_as_far_as_it_is_listed(
    entry: str, url: str, settings: Any, names: Names, connected: list[Any]
) -> None:
    names.answers |= {"consumer": [["10.9.9.9"]], "consumer.internal": [["10.9.9.9"]]}
    settings.OUTGOING_ALLOWED_HOSTS = [entry]
    with pytest.raises(Unreachable):
        call(url)
    assert len(connected) == 1


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("10.0.0.0/8", "https://192.168.0.1/"),
        ("10.0.0.0/8", "http://private.example.com/"),  # a name: only what is listed by name
        ("10.0.0.0/8", "https://one-of-two.example.com/"),
        ("example.com", "https://private.example.com/"),
        ("private.example.com", "https://loopback.example.com/"),
        ("private.example.com", "ftp://private.example.com/"),
        ("private.example.com", "https://user@private.example.com/"),
    ],
)
def test_what_is_not_listed_stays_denied(
    entry: str, url: str, settings: Any, names: Names, connected: list[Any]
) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = [entry]
    with pytest.raises(Denied):
        call(url)
    assert connected == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.8.8.8", True),
        ("100.63.255.255", True),
        ("100.128.0.0", True),
        ("172.15.255.255", True),
        ("172.32.0.0", True),
        ("223.255.255.255", True),
        ("2001:200::1", True),
        ("2003::1", True),
        ("2a00:1450:4001::1", True),
        ("1fff::1", False),
        ("4000::1", False),
        ("2001:1ff:ffff::1", False),
    ],
)
def test_public_addresses_end_where_the_registries_say(text: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is expected
