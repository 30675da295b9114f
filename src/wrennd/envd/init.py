"""POST /init: what the host tells the guest after every start.

The host repeats it until it is answered, so applying one twice changes nothing, and a repetition
that was overtaken must not set the clock back: moments older than the last one are ignored.
"""

from __future__ import annotations

from wrennd.envd import VERSION, fields, jsontext, users
from wrennd.envd.clock import parse_moment
from wrennd.envd.connect import RpcError
from wrennd.envd.entropy import mix_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.auth import Access
    from wrennd.envd.clock import Clock
    from wrennd.envd.connection import Exchange
    from wrennd.envd.fields import Message

MAX_BODY_BYTES = 1 << 20
# Corrections smaller than these do more harm than good to what the guest is timing.
BEHIND_NS = 50 * 10**6
AHEAD_NS = 5 * 10**9
VERSION_HEADER = [("X-Envd-Version", VERSION)]


class Settings:
    """What every process starts with unless its request says otherwise."""

    __slots__ = ("env", "last_moment_ns", "user", "workdir")

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.user = ""
        self.workdir = ""
        self.last_moment_ns = 0

    def account(self, name: str) -> users.Account:
        """The account that a call acts for. Errors: RpcError unauthenticated."""
        chosen = name or self.user
        return users.find(chosen) if chosen else users.default()


class Init:
    """Handler: collects the body, then applies it."""

    def __init__(
        self, exchange: Exchange, access: Access, settings: Settings, clock: Clock
    ) -> None:
        self._exchange = exchange
        self._access = access
        self._settings = settings
        self._clock = clock
        self._body = bytearray()

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._exchange.fail(413, f"the body exceeds the {MAX_BODY_BYTES} bytes allowed")

    def end(self) -> None:
        try:
            order = jsontext.decode_object(self._body)
            token = fields.text(order, "access_token")
        except (ValueError, RpcError) as error:
            self._exchange.fail(400, f"the body can't be read: {error}")
            return
        if not self._access.allows_init(self._exchange.request.headers, token):
            self._exchange.fail(401, "the access token is missing or wrong")
            return
        try:
            apply(order, self._settings, self._clock)
        except (ValueError, RpcError) as error:
            self._exchange.fail(400, str(error))
            return
        except OSError as error:
            self._exchange.fail(500, f"the clock or the entropy could not be set: {error}")
            return
        if token is not None and self._access.replace(token):
            # Whoever knew the former token loses what is still open under it.
            self._exchange.forget_others()
        self._exchange.reply(204, VERSION_HEADER)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        pass


def apply(order: Message, settings: Settings, clock: Clock) -> None:
    """Everything but the token. All of it is checked before any of it is applied.

    Errors: ValueError or RpcError for bad values; OSError when clock or entropy can't be set.
    """
    env = fields.text_map(order, "env_vars")
    check_env(env)
    user = fields.text(order, "default_user")
    workdir = fields.text(order, "default_workdir")
    seed = fields.blob(order, "entropy")
    moment = fields.text(order, "timestamp")
    moment_ns = parse_moment(moment) if moment else None
    if user:
        users.find(user)
    if moment_ns is not None:
        adjust(clock, settings, moment_ns)
    if seed:
        mix_in(seed)
    if "envVars" in order or "env_vars" in order:
        settings.env = env
    if user is not None:
        settings.user = user
    if workdir is not None:
        settings.workdir = workdir


def check_env(env: dict[str, str]) -> None:
    """Errors: RpcError for a name that no environment can hold."""
    for name in env:
        if not name or "=" in name or "\0" in name:
            raise RpcError("invalid_argument", f"{name!r} is not a name of a variable")


def adjust(clock: Clock, settings: Settings, moment_ns: int) -> None:
    """Set the clock to the host's when it is behind or far ahead."""
    if moment_ns <= settings.last_moment_ns:
        return
    ahead_ns = clock.now_ns() - moment_ns
    if ahead_ns < -BEHIND_NS or ahead_ns > AHEAD_NS:
        clock.set_ns(moment_ns)
    settings.last_moment_ns = moment_ns
