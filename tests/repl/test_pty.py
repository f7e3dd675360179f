"""test_pty.py - qkv on a pseudo-terminal: keys, Ctrl-C, history, Tab

Started by pty.sh in an empty folder, with the program in $QKV. Each test is a
function that types and says what must appear; limits are generous, since a
loaded machine is slow, but what is waited for must come.
"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

QKV = os.environ["QKV"]
LIMIT = float(os.environ.get("LIMIT", 60))      # s, for anything to appear
PROMPT = "qkv> "
CTRL_C, CTRL_D, CTRL_P, CTRL_R = "\x03", "\x04", "\x10", "\x12"


class Wrong(Exception):
    pass


class Session:
    """One program on a terminal of 80 columns."""

    def __init__(self, *args, home="home", **environment):
        self.seen = ""
        folder = os.path.abspath(home)
        env = dict(os.environ, TERM="xterm", NO_COLOR="1", HOME=folder,
                   XDG_STATE_HOME=folder + "/state",
                   XDG_CONFIG_HOME=folder + "/config")
        env.update(environment)
        env.pop("INPUTRC", None)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(QKV, [QKV, *args], env)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, 80, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def _read(self, seconds):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
                for switch in "\x1b[?2004h", "\x1b[?2004l\r":    # of pasting
                    self.seen = self.seen.replace(switch, "")
                return True
            except OSError:     # the other end is closed
                return False
        return True

    def expect(self, text, seconds=LIMIT):
        """Wait for text; all up to it goes to self.before. Returns
        the seconds it took."""
        start = time.monotonic()
        while text not in self.seen:
            left = start + seconds - time.monotonic()
            if left <= 0 or not self._read(left):
                raise Wrong(f"expected {text!r}, saw {self.seen!r}")
        at = self.seen.index(text)
        self.before, self.seen = self.seen[:at], self.seen[at + len(text):]
        return time.monotonic() - start

    def enter(self, line, answer=None):
        """Type a line at the prompt and wait for the next one."""
        self.type(line + "\r")
        if answer is not None:
            self.expect("\r\n")
            self.expect(answer)
        self.expect(PROMPT)

    def leave(self):
        self.type(CTRL_D)
        return self.status()

    def status(self):
        start = time.monotonic()
        while self._read(0.05) and time.monotonic() < start + LIMIT:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                break
        else:
            pid, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def equal(got, want):
    if got != want:
        raise Wrong(f"got {got!r}, want {want!r}")


def opened(*args, **options):
    session = Session(*args, **options)
    session.expect(PROMPT)
    return session


def stops(line, session=None):
    """Ctrl-C ends this line, quickly, and the session goes on."""
    session = session or opened()
    session.type(line + "\r")
    session.expect("\r\n")
    time.sleep(0.5)             # let it run
    session.type(CTRL_C)
    took = session.expect("interrupted")
    session.expect(PROMPT)
    session.enter("40 + 2", "42")
    equal(session.leave(), 0)
    if took > 2.0:              # 0.1 s on a machine with nothing else to do
        raise Wrong(f"{line} stopped after {took:.2f} s")


# ---- the tests ----

def test_banner_and_end():
    session = Session()
    session.expect("?name for help")
    session.expect(PROMPT)
    session.enter("1 + 1", "2")
    equal(session.leave(), 0)


def test_banner_with_a_model():
    session = Session(os.environ["srcdir"] + "/data/tiny.gguf")
    session.expect("tiny random model  llama")
    session.expect('help "start"')
    session.expect(PROMPT)
    equal(session.leave(), 0)


def test_quit():
    session = opened()
    session.type(":quit\r")
    equal(session.status(), 0)


def test_interrupt_at_prompt():
    session = opened()
    session.type("some words" + CTRL_C)
    session.expect("^C")
    session.expect(PROMPT)
    for _ in range(4):          # the third one must not end the program here
        session.type(CTRL_C)
        session.expect(PROMPT)
    session.enter("6 * 7", "42")
    equal(session.leave(), 0)


def test_interrupt_gives_up_lines():
    session = opened()
    session.type("for i = 1, 3 do\r")
    session.expect("  ..> ")
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.enter("6 * 7", "42")
    equal(session.leave(), 0)


def test_interrupt_loop():
    stops("while true do end")


def test_interrupt_loop_around_pcall():
    stops("f = function() while true do end end "
          "while true do pcall(f) end")


def test_interrupt_loop_of_calls():
    stops("while true do pcall(error) end")


def test_interrupt_coroutine():
    stops("coroutine.wrap(function() while true do end end)()")


def test_interrupt_resumed_coroutine():
    stops("while true do coroutine.resume(coroutine.create(function() "
          "while true do pcall(function() while true do end end) end end)) end")


def test_interrupt_after_coroutine():
    session = opened()
    session.enter("c = coroutine.wrap(function() coroutine.yield() end) c()")
    stops("while true do end", session)


def test_interrupt_closing_coroutine():
    stops("c = coroutine.create(function() local x <close> = setmetatable({}, "
          "{__close = function() while true do end end}) coroutine.yield() end)"
          " coroutine.resume(c) coroutine.close(c)")


def test_interrupt_printing():
    stops("setmetatable({}, {__tostring = function() while true do end end})")


def test_stopped_coroutine_is_free_again():
    session = opened()
    session.enter("c = coroutine.wrap(function() while true do "
                  "pcall(coroutine.yield, 5) end end) c()")
    session.type("while true do c() end\r")
    session.expect("\r\n")
    time.sleep(0.3)
    session.type(CTRL_C)
    session.expect("interrupted")
    session.expect(PROMPT)
    session.enter("1 + 1", "2")
    equal(session.leave(), 0)


def test_third_interrupt_ends():
    session = opened()
    # liblua's matcher cannot be asked to stop
    session.type('string.find(string.rep("a", 5000), ".-.-.-.-.-.-b")\r')
    session.expect("\r\n")
    time.sleep(0.5)
    for _ in range(3):
        session.type(CTRL_C)
        time.sleep(0.2)
    equal(session.status(), 130)


def test_lines():
    session = opened()
    session.type("for i = 1, 2 do\r")
    session.expect("  ..> ")
    session.type("print(i * 11)\r")
    session.expect("  ..> ")
    session.enter("end", "11\r\n22")
    session.enter("local x = 5")
    session.enter("x", "5")
    session.enter("x + 1;")
    session.enter("_", "6")
    equal(session.leave(), 0)


def test_errors_go_on():
    session = opened()
    session.enter("error 'bad'", "qkv: bad")
    session.enter("nosuch.x", "attempt to index a nil value")
    session.enter("x = = 2", "unexpected symbol near '='")
    session.enter("1 + 1", "2")
    equal(session.leave(), 0)


def paste(session, text):
    session.type("\x1b[200~" + text + "\x1b[201~")
    session.type("\r")


def test_paste_chunk():
    session = opened()
    paste(session, "local n = 0\nfor i = 1, 4 do\n  n = n + i\nend\nprint(n)")
    session.expect("10\r\n")
    session.expect(PROMPT)
    session.type(CTRL_P)        # it is one entry
    session.expect("local n = 0")
    session.expect("print(n)")
    session.type("\r")
    session.expect("\r\n10\r\n")
    session.expect(PROMPT)
    equal(session.leave(), 0)


def test_paste_inputs():
    session = opened()
    paste(session, "a = 20\na + 1\na + 2")
    session.expect("\r\n21\r\n22\r\n")
    session.expect(PROMPT)
    equal(session.leave(), 0)


def test_paste_with_prompts():
    session = opened()
    paste(session, "qkv> b = 30\nqkv> b + 1\n31\nqkv> for i = 1, 1 do\n"
                   "  ..> print(b + 2)\n  ..> end\n32")
    session.expect("\r\n31\r\n32\r\n")
    session.expect(PROMPT)
    equal(session.leave(), 0)


def test_history_across_sessions():
    session = opened(home="history")
    session.enter("'first ' .. 'entry'", '"first entry"')
    session.type("for i = 1, 1 do\r")
    session.expect("  ..> ")
    session.type("  print 'in a loop'\r")
    session.expect("  ..> ")
    session.enter("end", "in a loop")
    session.enter(" 'not ' .. 'kept'", '"not kept"')
    equal(session.leave(), 0)
    path = "history/state/qkv/history"
    equal(oct(os.stat(path).st_mode & 0o777), "0o600")
    equal(oct(os.stat("history/state/qkv").st_mode & 0o777), "0o700")
    equal("kept" in open(path).read(), False)

    session = opened(home="history")
    session.type(CTRL_P)
    session.expect("print 'in a loop'")
    equal("entry" in session.before, False)     # it is an entry of its own
    session.expect("end")
    session.type("\r")
    session.expect("\r\nin a loop")
    session.expect(PROMPT)
    session.type(CTRL_R + "first")
    session.expect(".. 'entry'")
    session.type(CTRL_C)        # out of a search, too
    session.expect("^C")        # leaving the search redraws the old prompt
    session.expect(PROMPT)
    session.type(CTRL_R + "'first '")
    session.type("\r")
    session.expect('"first entry"')
    session.expect(PROMPT)
    equal(session.leave(), 0)


def test_history_repeats_once():
    session = opened(home="repeats")
    for _ in range(3):
        session.enter("7 * 7", "49")
    equal(session.leave(), 0)
    equal(open("repeats/state/qkv/history").read().count("7 * 7"), 1)


def test_history_cannot_be_written():
    open("nothome", "w").close()
    session = opened(home="nothome")
    session.enter("1 + 1", "2")
    equal(session.leave(), 0)


def test_tab_names():
    session = opened()
    session.type("coro\t")
    session.expect("coroutine")
    session.type(".isy\t")
    session.expect("isyieldable(")
    session.enter(")", "false")
    session.enter("t = {alpha = 1, beta_one = 2, beta_two = 3}")
    session.type("t.a\t")
    session.expect("lpha")
    session.enter("", "1")
    session.type("t.b\t")
    session.expect("eta_")
    session.type("\t\t")
    session.expect("beta_one")
    session.expect("beta_two")
    session.type("o\t")
    session.expect("one")
    session.enter("", "2")
    equal(session.leave(), 0)


def test_tab_methods():
    session = opened()
    session.enter("C = {go = print, size = 3} C.__index = C "
                  "o = setmetatable({data = 1}, C)")
    session.type("o:\t")        # functions only: there is one
    session.expect("o:go(")
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.enter("called = false p = setmetatable({}, {__index = function() "
                  "called = true end})")
    session.type("p.x\t\t")
    session.expect("p.x")
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.enter("called", "false")
    equal(session.leave(), 0)


def test_tab_asks_the_receiver():
    # table.pack is a C function that gives back what it was asked
    session = opened()
    session.enter("o = setmetatable({}, {__complete = table.pack})")
    session.type('o:site("si\t\t')
    session.expect('o:site("si')
    session.expect("si    site")
    session.expect(PROMPT)      # shown again
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.type('o:names({pick = {"a", "nam\t\t')
    session.expect("nam    names")
    session.expect(PROMPT)
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.enter("called = false o = setmetatable({}, {__complete = "
                  "function() called = true end})")
    session.type('o:site("si\t\t')
    session.type(CTRL_C)
    session.expect(PROMPT)
    session.enter("called", "false")
    equal(session.leave(), 0)


def give_up(session):
    session.type(CTRL_C)
    session.expect("^C")        # prompts may have been shown again before
    session.expect(PROMPT)


def offered(session, typed, *words):
    """Tab after `typed`, twice, shows these words; the line is given up."""
    session.type(typed + "\t\t")
    for word in words:
        session.expect(word)
    session.expect(PROMPT)
    give_up(session)


def becomes(session, typed, line):
    """One Tab makes this of what was typed, and nothing stands behind it."""
    session.type(typed + "\t|")
    session.expect(line + "|")
    give_up(session)


def test_tab_sites():
    session = opened(os.environ["srcdir"] + "/data/tiny.gguf")
    session.enter("r = m:run {1, 2, 3}")
    becomes(session, 'r("patt', 'r("pattern"')
    becomes(session, "r['ln1.norm", "r['ln1.normalized'")
    becomes(session, 'm:run("x", {names = "rot_q',
            'm:run("x", {names = "rot_q"')
    becomes(session, 'm:run("x", {edits = {{site = "resid_m',
            'm:run("x", {edits = {{site = "resid_mid"')
    # full names come part by part, and only the last one closes the string
    becomes(session, 'r("blo', 'r("blocks.')
    offered(session, 'r("blocks.', "0.  1.  2.  3.")
    becomes(session, 'm:sites "blocks.2.att', 'm:sites "blocks.2.attn.')
    becomes(session, 'r("blocks.2.attn.hook_patt',
            'r("blocks.2.attn.hook_pattern"')
    becomes(session, 'm:weight "blocks.1.mlp.W_g',
            'm:weight "blocks.1.mlp.W_gate"')
    equal(session.leave(), 0)


def test_tab_files():
    os.makedirs("some-folder", exist_ok=True)
    open("some-folder/a file.txt", "w").close()
    session = opened()
    session.type('io.open("some-f\t')
    session.expect("some-folder/")
    session.type("\t")
    session.expect('a file.txt"')               # the quote is closed, too
    session.enter('):read "a"', '""')
    equal(session.leave(), 0)


def test_tab_commands():
    session = opened()
    session.type(":ti\t")
    session.expect(":time")
    session.enter(" 6 * 7", "42")
    equal(session.leave(), 0)


def test_init_file():
    os.makedirs("init/config/qkv", exist_ok=True)
    with open("init/config/qkv/init.lua", "w") as file:
        file.write("from_init = 'init ' .. 'ran'\n")
    session = opened(home="init")
    session.enter("from_init", '"init ran"')
    equal(session.leave(), 0)
    session = opened("--no-init", home="init")
    session.enter("from_init", "nil")
    equal(session.leave(), 0)


def test_after_a_script():
    with open("setup.lua", "w") as file:
        file.write("answer = 42\n")
    session = opened("-i", "setup.lua")
    session.enter("answer", "42")
    session.enter("undefined_name", "nil")      # the prompt is not strict
    equal(session.leave(), 0)


def test_colour():
    session = Session(NO_COLOR="")
    session.expect("\x1b[1;32mqkv>")
    equal(session.leave(), 0)
    session = Session(NO_COLOR="", TERM="dumb")
    session.expect(PROMPT)
    equal("\x1b[1;32m" in session.seen, False)
    equal(session.leave(), 0)


def test_stop_and_continue():
    session = opened()
    session.type("20 + ")
    time.sleep(0.3)
    os.kill(session.pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(session.pid, signal.SIGCONT)
    session.expect("20 + ")
    session.enter("1", "21")
    equal(session.leave(), 0)


def test_utf8_editing():
    session = opened(LC_ALL="C.UTF-8")
    session.type('"é日本' + "\x7f" + '"\r')     # DEL takes one character
    session.expect('\r\n"é日"')
    session.expect(PROMPT)
    equal(session.leave(), 0)


def main():
    failed = passed = 0
    chosen = sys.argv[1:]
    for name, test in list(globals().items()):
        if not name.startswith("test_") or (chosen and name not in chosen):
            continue
        try:
            test()
            passed += 1
        except (Wrong, OSError) as problem:
            failed += 1
            print(f"{name}: {problem}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
