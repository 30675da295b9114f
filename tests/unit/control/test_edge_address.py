import pytest

from wrennd.control.edge_address import (
    BadAddress,
    Wanted,
    find,
    from_sandbox,
    is_control,
    to_sandbox,
)

BOX = "a1" * 10
DOMAIN = "sandbox.localhost"


def headers(**fields):
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]


def by_headers(host, sandbox_id=BOX, port="8080"):
    return headers(host=host, e2b_sandbox_id=sandbox_id, e2b_sandbox_port=port)


@pytest.mark.parametrize(
    "host", [f"8080-{BOX}.{DOMAIN}", f"8080-{BOX}.{DOMAIN}:7070", f"8080-{BOX}.SANDBOX.localhost."]
)
def test_a_host_name_leads_to_a_port(host):
    assert find(headers(host=host), DOMAIN) == Wanted(sandbox_id=BOX, port=8080)


def test_a_domain_may_have_a_port():
    wanted = Wanted(sandbox_id=BOX, port=1)
    assert find(headers(host=f"1-{BOX}.e2b.test:8443"), "e2b.test:8443") == wanted


@pytest.mark.parametrize("host", ["127.0.0.1:7070", "[::1]:7070", "localhost", "sandbox.any.org"])
def test_headers_lead_to_a_port_where_the_host_is_nobody_s(host):
    assert find(by_headers(host), DOMAIN) == Wanted(sandbox_id=BOX, port=8080)


@pytest.mark.parametrize("host", ["api.example.org", "example.org:7070", ""])
def test_headers_mean_nothing_at_a_name_of_its_own(host):
    assert find(by_headers(host), DOMAIN) is None


@pytest.mark.parametrize("host", ["127.0.0.1:7070", "localhost:7070", "sandbox.localhost"])
def test_without_headers_it_is_for_the_server(host):
    assert find(headers(host=host), DOMAIN) is None


@pytest.mark.parametrize(
    "host",
    [
        f"{port}-{sandbox_id}.{DOMAIN}"
        for port, sandbox_id in [
            ("0", BOX),
            ("65536", BOX),
            ("x", BOX),
            ("8080", "short"),
            ("8080", BOX.upper() + "x"),
            ("8080", f"{BOX}.x"),
        ]
    ]
    + [f"other.{DOMAIN}", f"-{BOX}.{DOMAIN}"],
)
def test_names_below_the_domain_that_lead_nowhere_are_wrong(host):
    with pytest.raises(BadAddress):
        find(headers(host=host), DOMAIN)


def test_one_header_alone_is_wrong():
    with pytest.raises(BadAddress, match="belong together"):
        find(headers(host="127.0.0.1", e2b_sandbox_id=BOX), DOMAIN)


@pytest.mark.parametrize("path", ["/health", "/files", "/process.Process/Start", "/envs"])
def test_what_the_guest_agent_serves_is_let_through(path):
    assert not is_control(49983, path)


@pytest.mark.parametrize(
    "path",
    [
        "/init",
        "/%69nit",
        "//init",
        "/init/",
        "/INIT",
        "/health/../init",
        "/freeze",
        "/unfreeze",
        "/",
        "/process.Process/../init",
        "/files?x=/init#",
    ],
)
def test_what_is_its_host_s_is_not(path):
    assert is_control(49983, path)
    assert not is_control(8080, path)


def test_our_credentials_and_this_hop_s_headers_stay_here():
    sent = headers(
        host=f"80-{BOX}.{DOMAIN}",
        x_api_key="e2b_00",
        authorization="Bearer e2b_0123abcd",
        e2b_sandbox_id=BOX,
        e2b_traffic_access_token="t",
        connection="keep-alive, X-Hop",
        x_hop="1",
        te="trailers",
        x_forwarded_for="1.2.3.4",
        cookie="theirs",
    )
    assert to_sandbox(sent, client="9.9.9.9", scheme="http") == [
        (b"host", f"80-{BOX}.{DOMAIN}".encode()),
        (b"cookie", b"theirs"),
        (b"x-forwarded-for", b"9.9.9.9"),
        (b"x-forwarded-host", f"80-{BOX}.{DOMAIN}".encode()),
        (b"x-forwarded-proto", b"http"),
    ]


@pytest.mark.parametrize("value", ["Basic dTpw", "Bearer theirs", "Bearer e2b_not-hex"])
def test_a_sandbox_s_own_authorization_is_passed(value):
    assert (b"authorization", value.encode()) in to_sandbox(
        headers(authorization=value), client="", scheme="http"
    )


def test_a_response_keeps_its_own_headers():
    got = [
        (b"Content-Length", b"3"),
        (b"Connection", b"close"),
        (b"Transfer-Encoding", b"x"),
        (b"Set-Cookie", b"a=b"),
    ]
    assert from_sandbox(got) == [(b"Content-Length", b"3"), (b"Set-Cookie", b"a=b")]
