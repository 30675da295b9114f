"""POST /init: what the host tells the guest after every start.

The host repeats it until it is answered, so applying one twice changes nothing, and a repetition
that was overtaken must not set the clock back: moments older than the last one are ignored.

With `restored` it tells a guest that it was restored from a snapshot: nothing that was connected
before is connected any more, the clock is set exactly, and hooks are due before users' processes
go on (`freeze.py`). Such an order is refused without a moment, a seed and a token.
"""

from __future__ import annotations

from time import monotonic

from wrennd.envd import VERSION, fields, jsontext, users
from wrennd.envd.clock import format_moment, parse_moment
from wrennd.envd.connect import RpcError
from wrennd.envd.entropy import mix_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.auth import Access
    from wrennd.envd.clock import Clock
    from wrennd.envd.connection import Exchange
    from wrennd.envd.fields import Message
    from wrennd.envd.gate import Gate

MAX_BODY_BYTES = 1 << 20
# Corrections smaller than these do more harm than good to what the guest is timing.
BEHIND_NS = 50 * 10**6
AHEAD_NS = 5 * 10**9
# After a restore only these are left alone: no more than the way here takes.
EXACT_NS = 5 * 10**6
# Of a seed that alone has to tell two guests of one snapshot apart.
MIN_SEED_BYTES = 16
VERSION_HEADER = [("X-Envd-Version", VERSION)]
ID_VARIABLE = "WRENN_SANDBOX_ID"


class Settings:
    """What every process starts with unless its request says otherwise."""

    __slots__ = ("former_id", "last_moment_ns", "own_env", "sandbox_id", "user", "workdir")

    def __init__(self) -> None:
        self.own_env: dict[str, str] = {}
        self.user = ""
        self.workdir = ""
        self.last_moment_ns = 0
        self.sandbox_id = ""
        # Whose guest it was before the last restore: the same one's, or a template's.
        self.former_id = ""

    @property
    def env(self) -> dict[str, str]:
        """The variables that were given, and the sandbox's id when it is known: those of a
        template's sandbox may name that one."""
        return self.own_env | ({ID_VARIABLE: self.sandbox_id} if self.sandbox_id else {})

    def account(self, name: str) -> users.Account:
        """The account that a call acts for. Errors: RpcError unauthenticated."""
        chosen = name or self.user
        return users.find(chosen) if chosen else users.default()


class Order:
    """The body of an /init, checked as far as that goes without looking at the guest."""

    __slots__ = (
        "arrived",
        "env",
        "is_restore",
        "moment_ns",
        "sandbox_id",
        "seed",
        "token",
        "user",
        "workdir",
    )

    def __init__(self, message: Message, age_s: float = 0.0) -> None:
        """age_s: how long ago it arrived, which its moment doesn't know.

        Errors: ValueError or RpcError for bad values.
        """
        self.arrived = monotonic() - age_s
        is_env_given = "envVars" in message or "env_vars" in message
        self.env = fields.text_map(message, "env_vars") if is_env_given else None
        check_env(self.env or {})
        self.token = fields.text(message, "access_token")
        self.user = fields.text(message, "default_user")
        self.workdir = fields.text(message, "default_workdir")
        self.seed = fields.blob(message, "entropy") or b""
        moment = fields.text(message, "timestamp")
        self.moment_ns = parse_moment(moment) if moment else None
        self.sandbox_id = fields.text(message, "sandbox_id") or ""
        self.is_restore = fields.boolean(message, "restored") or False
        if self.sandbox_id:
            from wrennd.envd.identity import check_sandbox_id

            check_sandbox_id(self.sandbox_id)
        if self.is_restore:
            self._check_restore()

    def _check_restore(self) -> None:
        """Without one of these the guest would go on as somebody else."""
        is_whole = self.token is not None and self.moment_ns is not None and self.sandbox_id
        if not is_whole or len(self.seed) < MIN_SEED_BYTES:
            raise ValueError(
                "a restored guest needs accessToken, timestamp, sandboxId and at least"
                f" {MIN_SEED_BYTES} bytes of entropy"
            )


class Guest:
    """What orders are carried out on.

    root: the tree whose identity is ours to change; empty when that is nobody's, as on a machine
    that envd shares with others.
    """

    def __init__(
        self, access: Access, settings: Settings, clock: Clock, gate: Gate, root: str
    ) -> None:
        self.access = access
        self.settings = settings
        self.clock = clock
        self.gate = gate
        self.root = root

    def identify(self, order: Order, *, is_news: bool) -> list[str]:
        """Become the order's sandbox, if it is another one; what could not be done."""
        settings = self.settings
        is_another = order.sandbox_id not in ("", settings.sandbox_id)
        if is_another or is_news:
            settings.former_id = settings.sandbox_id
        if not is_another:
            return []
        settings.sandbox_id = order.sandbox_id
        if not self.root:
            return []
        from wrennd.envd.identity import assume

        return assume(self.root, order.sandbox_id)


class Init:
    """Handler: collects the body, then applies it."""

    def __init__(self, exchange: Exchange, guest: Guest) -> None:
        self._exchange = exchange
        self._guest = guest
        self._body = bytearray()

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._exchange.fail(413, f"the body exceeds the {MAX_BODY_BYTES} bytes allowed")

    def end(self) -> None:
        try:
            order = Order(jsontext.decode_object(self._body), self._exchange.age_s)
        except (ValueError, RpcError) as error:
            self._exchange.fail(400, f"the body can't be read: {error}")
            return
        guest = self._guest
        if not guest.access.allows_init(self._exchange.request.headers, order.token):
            self._exchange.fail(401, "the access token is missing or wrong")
            return
        is_news = order.is_restore and guest.gate.is_news(order.token or "")
        try:
            apply(order, guest.settings, guest.clock, is_news=is_news)
        except (ValueError, RpcError) as error:
            self._exchange.fail(400, str(error))
            return
        except OSError as error:
            self._exchange.fail(500, f"the clock or the entropy could not be set: {error}")
            return
        self._finish(order, guest.identify(order, is_news=is_news), is_news=is_news)

    def _finish(self, order: Order, troubles: list[str], *, is_news: bool) -> None:
        if is_news:
            self._guest.gate.note_restore(order.token or "")
        is_other_token = order.token is not None and self._guest.access.replace(order.token)
        if is_news or is_other_token:
            # Who was connected is gone since the restore, or knew the former token.
            self._exchange.forget_others()
        if order.is_restore:
            reply: jsontext.Json = {
                "now": format_moment(self._guest.clock.now_ns()),
                # Of the call's time so much was spent here, and not on the way.
                "tookUs": round((monotonic() - order.arrived) * 1e6),
                "warnings": list(troubles),
            }
            self._exchange.reply_json(200, reply, VERSION_HEADER)
        else:
            tell(troubles)
            self._exchange.reply(204, VERSION_HEADER)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        pass


def tell(troubles: list[str]) -> None:
    import sys

    for trouble in troubles:
        sys.stderr.write(f"envd: {trouble}\n")


def apply(order: Order, settings: Settings, clock: Clock, *, is_news: bool = False) -> None:
    """Everything but token and identity. What can be refused comes before what changes anything.

    is_news: the first order of a restore, whose moment counts whatever was heard before it.
    Errors: RpcError for an unknown user; ValueError for a seed that is too long; OSError when
    clock or entropy can't be set.
    """
    if order.user:
        users.find(order.user)
    mix_in(order.seed)
    if is_news:
        settings.last_moment_ns = 0
    adjust(clock, settings, order)
    if order.env is not None:
        settings.own_env = order.env
    if order.user is not None:
        settings.user = order.user
    if order.workdir is not None:
        settings.workdir = order.workdir


def check_env(env: dict[str, str]) -> None:
    """Errors: RpcError for a name that no environment can hold."""
    for name in env:
        if not name or "=" in name or "\0" in name:
            raise RpcError("invalid_argument", f"{name!r} is not a name of a variable")


def adjust(clock: Clock, settings: Settings, order: Order) -> None:
    """Set the clock to the host's when it is behind or far ahead; after a restore, in any case."""
    moment_ns = order.moment_ns
    if moment_ns is None or moment_ns <= settings.last_moment_ns:
        return
    now_ns = moment_ns + round((monotonic() - order.arrived) * 1e9)
    ahead_ns = clock.now_ns() - now_ns
    behind, ahead = (EXACT_NS, EXACT_NS) if order.is_restore else (BEHIND_NS, AHEAD_NS)
    if ahead_ns < -behind or ahead_ns > ahead:
        clock.set_ns(now_ns)
    settings.last_moment_ns = moment_ns
