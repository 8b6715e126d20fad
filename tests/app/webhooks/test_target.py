"""Where webhooks may not go: a corpus, each entry refused before anything is connected to."""

import ipaddress

import pytest

from app.webhooks.target import TargetError, is_public, parse_target, pinned_address, resolve_by_system

# Addresses that are not everybody's, in every way that one is written.
PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "2001:0:53aa:64c:0:7f:80ff:fffe",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "100::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8"]

# Ways to say another host than it seems, or one that a resolver reads as an address.
TRICKS = [
    "",
    "https://",
    "https:///",
    "https:/hooks.test/",
    "//hooks.test/",
    "hooks.test",
    "ftp://hooks.test/",
    "file:///etc/passwd",
    "gopher://hooks.test/",
    "unix:///run/valkey.sock",
    "javascript:alert(1)",
    "http://hooks.test/",
    "HTTP://hooks.test/",
    "https://user@hooks.test/",
    "https://user:password@hooks.test/",
    "https://hooks.test@127.0.0.1/",
    "https://hooks.test:443@127.0.0.1/",
    "https://127.0.0.1#@hooks.test/",
    "https://127.0.0.1?@hooks.test/",
    "https://127.0.0.1\\@hooks.test/",
    "https://hooks.test\\.127.0.0.1/",
    "https://hooks.test%2F@127.0.0.1/",
    "https://hooks.test%00.127.0.0.1/",
    "https://%31%32%37.0.0.1/",
    "https://hooks.test/#fragment",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://127.0.0.1./",
    "https://127.0.0.256/",
    "https://1.2.3.4.5/",
    "https://hooks.0x7f/",
    "https://[::1/",
    "https://::1/",
    "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[]/",
    "https://[1.1.1.1]x/",
    "https://[g::1]/",
    "https://[:::]/",
    "https://hooks..test/",
    "https://.hooks.test/",
    "https://-hooks.test/",
    "https://hooks.test-/",
    "https://hooks_test/",
    "https://hooks.test:/",
    "https://hooks.test:0/",
    "https://hooks.test:65536/",
    "https://hooks.test:99999999/",
    "https://hooks.test:443:443/",
    "https://hooks.test:+443/",
    "https://hooks.test:４４３/",
    "https://ｌocalhost/",
    "https://①②⑦.⓪.⓪.①/",
    "https://localhost。test/",
    "https://hooks.test /",
    " https://hooks.test/",
    "https://hooks.test/\n",
    "https://hooks.test/\r\nHost: 127.0.0.1",
    "https://hooks.test/a b",
    "https://hooks.test/\t",
    "https://hooks.test/\x00",
    "https://hooks.test/\x7f",
    "https://hooks.test/é",
    "https://hooks.test/\ud800",
    "https://hooks.test?query",
    "https://hooks.test/" + "a" * 2_048,
    f"https://{'a' * 64}.test/",
    f"https://hooks.{'a' * 64}/",
    f"https://{'a.' * 126}aa/",
]


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_everybodys_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(TargetError):
        parse_target(f"https://{literal(address)}/hook", allow_private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_taken(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert parse_target(f"https://{literal(address)}/hook", allow_private=False).host == literal(address)


@pytest.mark.parametrize("url", TRICKS)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(TargetError):
        parse_target(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://hooks.test", "hooks.test", "/"),
        ("https://Hooks.Test/a/b?c=d&e=%2F", "hooks.test", "/a/b?c=d&e=%2F"),
        ("https://hooks.test:443/", "hooks.test", "/"),
        ("https://hooks.test:8443/@me", "hooks.test:8443", "/@me"),
        ("https://xn--bcher-kva.test/", "xn--bcher-kva.test", "/"),
        ("https://1.1.1.1.example.com/", "1.1.1.1.example.com", "/"),
        (f"https://{'a' * 63}.test/", f"{'a' * 63}.test", "/"),
        (f"https://{'a.' * 126}a/", f"{'a.' * 126}a", "/"),
    ],
)
def test_a_plain_url_is_read(url: str, authority: str, path: str) -> None:
    target = parse_target(url, allow_private=False)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_with_one_such_address_is_refused(address: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["1.1.1.1", address, "8.8.8.8"]

    target = parse_target("https://hooks.test/", allow_private=False)
    with pytest.raises(TargetError):
        await pinned_address(target, resolve, allow_private=False)


async def test_names_of_this_machine_are_refused() -> None:
    for host in ("localhost", "LOCALHOST"):
        target = parse_target(f"https://{host}/", allow_private=False)
        with pytest.raises(TargetError):
            await pinned_address(target, resolve_by_system, allow_private=False)


async def test_a_name_without_an_address_is_refused() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return []

    with pytest.raises(TargetError):
        await pinned_address(parse_target("https://hooks.test/", allow_private=False), resolve, allow_private=False)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "\ud800.test"])
async def test_what_the_resolver_cannot_even_read_is_refused(host: str) -> None:
    with pytest.raises(TargetError):
        await resolve_by_system(host, 443)
